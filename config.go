package caddysnake

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Config says how one Python app runs. The Caddyfile, JSON and `caddy python-server` all fill this one struct.
//
// Module names, paths, root_path, env_files and the values of env_vars may hold Caddy's global placeholders, such as
// {env.NAME} or {file.PATH}; they are replaced once, when the configuration is loaded. All of these but python_path and
// root_path may also hold placeholders of the request, such as {http.request.host.labels.2}; then the apps are dynamic:
// the first request with other values starts another one, in one worker if workers is not set.
type Config struct {
	// The WSGI app: "module:variable", "package.module:object.attribute" or "module:factory()". Exactly one module_* is
	// required.
	ModuleWSGI string `json:"module_wsgi,omitempty"`

	// The ASGI app, in the same forms.
	ModuleASGI string `json:"module_asgi,omitempty"`

	// The ESGI app, in the same forms; experimental.
	ModuleESGI string `json:"module_esgi,omitempty"`

	// How many workers serve the app, at least 1. Default: GOMAXPROCS, which is one per CPU, but fewer where a cgroup allows
	// less than 128 MiB of memory for each. With MaxWorkers: the least; default 0.
	Workers int `json:"workers,omitempty"`

	ScalingConfig

	// Where workers run: "process" (the default but on Windows), or "thread", in one interpreter inside Caddy that all such apps share.
	WorkersRuntime string `json:"workers_runtime,omitempty"`

	// How a worker runs requests. WSGI: "sync" (threads, the default) or "gevent" (a greenlet for each request). ASGI:
	// "native" (asyncio) or "uvloop". The default for ASGI is uvloop where it is installed, else asyncio with a warning.
	// ESGI: "gevent" (the default).
	Runtime string `json:"runtime,omitempty"`

	// WSGI threads in each worker, at least 1. Default: 8. Not with gevent.
	Threads int `json:"threads,omitempty"`

	// The ASGI lifespan protocol: "on"; "auto", which serves an app that does not speak it without; or "off" (the default).
	Lifespan string `json:"lifespan,omitempty"`

	// The app's folder: import root, current directory and sys.path[0]. Default: Caddy's current directory.
	WorkingDir string `json:"working_dir,omitempty"`

	// A virtual environment, whose interpreter runs the workers. A relative path is looked up in Caddy's current
	// directory and, if nothing is there, in working_dir.
	VenvPath string `json:"venv_path,omitempty"`

	// The interpreter that runs the workers: a path, looked up like venv_path, or the name of a command on PATH. Wins
	// over the virtual environment's. Default: python3 on PATH, then python.
	PythonPath string `json:"python_path,omitempty"`

	// Environment variables for the workers; they win over env_files.
	EnvVars map[string]string `json:"env_vars,omitempty"`

	// Files of NAME=VALUE lines, read in this order when the configuration is loaded; a later file wins over an earlier
	// one. A relative path is relative to working_dir and must not lead out of it.
	EnvFiles []string `json:"env_files,omitempty"`

	// How long the workers may take to get ready. Default: 120s; -1: for ever.
	StartTimeout caddy.Duration `json:"start_timeout,omitempty"`

	// How long requests may go on after a reload of the app, or after Caddy was told to exit; then they are cut off.
	// Default: 30s; -1: for ever.
	DrainTimeout caddy.Duration `json:"drain_timeout,omitempty"`

	RecyclingConfig
	LimitsConfig

	// For development: "on" starts the app anew when a Python file below working_dir changes, and shows why it does not
	// start, which then does not keep Caddy from starting; "browser" also has open pages reload themselves. Default: "off".
	Autoreload string `json:"autoreload,omitempty"`

	// SCRIPT_NAME and root_path. Default "auto": what other handlers stripped from the front of the original path; a
	// rewrite to another path strips nothing.
	// "/" says that the app is at the root whatever was removed.
	RootPath string `json:"root_path,omitempty"`

	// How Caddy looks after the app's WebSockets. Not for WSGI.
	WebSocket *WebSocketConfig `json:"websocket,omitempty"`

	DynamicConfig

	confinedTo map[string]string // of a dynamic app: the folder that an absolute env_file must lie in, "" for anywhere
}

// What a Config that leaves a setting out gets.
const (
	defaultThreads      = 8
	defaultStartTimeout = 120 * time.Second
	defaultDrainTimeout = 30 * time.Second
)

// The runtimes that Caddy itself must know: threads, and a greenlet for each request.
const (
	runtimeSync   = "sync"
	runtimeGevent = "gevent"
)

// runtimes are the values of runtime that each interface allows.
var runtimes = map[string][]string{
	interfaceWSGI: {runtimeSync, runtimeGevent},
	interfaceASGI: {"native", "uvloop"},
	interfaceESGI: {runtimeGevent},
}

// defaultRuntimes are what a Config that names none gets. "auto" is uvloop where it is installed.
var defaultRuntimes = map[string]string{
	interfaceWSGI: runtimeSync,
	interfaceASGI: "auto",
	interfaceESGI: runtimeGevent,
}

// Where workers run.
const (
	runtimeProcess = "process"
	runtimeThread  = "thread"
)

// forever is the timeout that never ends.
const forever caddy.Duration = -1

// settings is a Config resolved: everything that decides how Python runs, and nothing else. Two handlers with equal
// settings share one pool.
type settings struct {
	Interface      string        // interfaceWSGI, interfaceASGI or interfaceESGI
	App            string        // "module:variable"
	Workers        int           // at least 1
	WorkersRuntime string        // runtimeProcess or runtimeThread
	Runtime        string        // "sync" or runtimeGevent; "native", "uvloop" or "auto"
	Threads        int           // WSGI threads in each worker, at least 1; 1 where it has no meaning
	Lifespan       string        // "on", "off" or "auto"
	WorkingDir     string        // absolute, symlinks resolved; never empty
	Python         string        // the interpreter's absolute path
	Env            []string      // NAME=VALUE on top of Caddy's own environment, sorted by name
	Confined       []confined    // what a request has chosen of a dynamic app
	Folder         string        // the folderID of working_dir, if a request has chosen it; "" otherwise
	StartTimeout   time.Duration // 0: for ever
	DrainTimeout   time.Duration // 0: for ever
	recycling
	limits
	scaling
}

// threaded says that each open request holds one of its worker's threads.
func (s *settings) threaded() bool {
	return s.Interface == interfaceWSGI && s.Runtime != runtimeGevent
}

// key tells settings apart in a caddy.UsagePool. It holds the values of environment variables: keep it out of logs.
func (s settings) key() string {
	return fmt.Sprintf("%#v", s)
}

// settingError is one wrong setting, told in one line: what is wrong, what is allowed, what to do.
type settingError struct {
	setting string // its name in the Caddyfile; "" when the fault is what is missing
	err     error
}

func (e *settingError) Error() string {
	if e.setting == "" {
		return e.err.Error()
	}
	return e.setting + ": " + e.err.Error()
}

func (e *settingError) Unwrap() error { return e.err }

func wrong(setting, format string, args ...any) error {
	return &settingError{setting, fmt.Errorf(format, args...)}
}

// advise is what to do where workers can be processes, or where they cannot.
func advise(processes, none string) string {
	if noProcesses != "" {
		return none
	}
	return processes
}

// prepare replaces placeholders, but for those of requests, and makes the checks that need no file.
func (c *Config) prepare() error {
	if err := c.replacePlaceholders(); err != nil {
		return err
	}
	return c.validate()
}

// settings checks c, which is prepared and has no placeholder left, against this machine, and applies the defaults. It reads
// files but starts no Python. An error is a *settingError.
func (c *Config) settings() (settings, error) {
	workingDir, err := c.findWorkingDir()
	if err != nil {
		return settings{}, err
	}
	python, err := c.findPython(workingDir)
	if err != nil {
		return settings{}, err
	}
	env, err := c.readEnv(workingDir)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		Workers:        c.Workers,
		Runtime:        c.Runtime,
		Threads:        c.Threads,
		Lifespan:       cmp.Or(c.Lifespan, "off"),
		WorkingDir:     workingDir,
		Python:         python,
		Env:            env,
		StartTimeout:   limit(c.StartTimeout, defaultStartTimeout),
		DrainTimeout:   limit(c.DrainTimeout, defaultDrainTimeout),
		WorkersRuntime: cmp.Or(c.WorkersRuntime, defaultWorkersRuntime),
		recycling:      c.recycling(),
		limits:         c.limits(),
		scaling:        c.scaling(),
	}
	if s.Workers == 0 && s.MaxWorkers == 0 {
		s.Workers = defaultWorkers()
	}
	s.Interface, s.App = c.app()
	if s.Runtime == "" {
		s.Runtime = defaultRuntimes[s.Interface]
	}
	switch {
	case s.Runtime != runtimeSync:
		s.Threads = 1
	case s.Threads == 0:
		s.Threads = defaultThreads
	}
	return s, nil
}

// app returns the interface and the app; of several, which is an error, the first.
func (c *Config) app() (iface, app string) {
	switch {
	case c.ModuleWSGI != "":
		return interfaceWSGI, c.ModuleWSGI
	case c.ModuleASGI != "":
		return interfaceASGI, c.ModuleASGI
	default:
		return interfaceESGI, c.ModuleESGI
	}
}

// limit turns a timeout of a Config into one of settings, where 0 is for ever.
func limit(timeout caddy.Duration, byDefault time.Duration) time.Duration {
	switch timeout {
	case 0:
		return byDefault
	case forever:
		return 0
	default:
		return time.Duration(timeout)
	}
}

// parseTimeout parses what the Caddyfile and the command line take as a timeout.
func parseTimeout(setting, text string) (caddy.Duration, error) {
	if text == "-1" || text == "forever" {
		return forever, nil
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil || duration <= 0 {
		return 0, wrong(setting, "%q is not possible; give a duration such as 120s or 5m, or forever", text)
	}
	return caddy.Duration(duration), nil
}

func validateTimeout(setting string, timeout caddy.Duration) error {
	if timeout < 0 && timeout != forever {
		return wrong(setting, "%s is not possible; give a duration such as 120s or 5m, or -1 for no limit", time.Duration(timeout))
	}
	return nil
}

// rootPath returns the fixed SCRIPT_NAME and root_path ("" at the root, no slash at the end), or auto.
func (c *Config) rootPath() (path string, auto bool) {
	if c.RootPath == "" || c.RootPath == rootPathAuto {
		return "", true
	}
	return strings.TrimRight(c.RootPath, "/"), false
}

// replacePlaceholders replaces global placeholders, and leaves those of requests as fill expects them. A placeholder that is
// unknown or empty is an error, except in the values of env_vars, where braces are often meant literally (JSON).
func (c *Config) replacePlaceholders() error {
	replacer := caddy.NewReplacer()
	allowed := "only global placeholders, such as {env.NAME}, that are not empty are allowed here"
	replace := func(setting string, value *string) error {
		if strings.Contains(*value, placeholderMark) {
			return wrong(setting, "it contains a NUL byte; remove it") // the value may be a secret
		}
		if setting == "env_var" {
			*value = replacer.ReplaceKnown(*value, "")
			return nil
		}
		replaced, err := replacer.ReplaceOrErr(*value, true, true)
		if err != nil {
			return wrong(setting, "%q: %w; %s", *value, err, allowed)
		}
		*value = replaced
		return nil
	}
	if err := replace("python_path", &c.PythonPath); err != nil {
		return err
	}
	if err := replace("root_path", &c.RootPath); err != nil {
		return err
	}
	replacer.Map(keepForRequests)
	allowed = "only placeholders of the request, such as {http.request.host.labels.2}, and global ones, such as {env.NAME}, that are not empty are allowed here"
	c.own()
	return c.forRequests(replace)
}

// appSpec is "module:object" or "module:factory()", both with dots. The module may have hyphens, since its name stands in no
// Python code.
var appSpec = func() *regexp.Regexp {
	dotted := func(name string) string { return name + `(\.` + name + `)*` }
	module, object := dotted(`[\p{L}_][\p{L}\p{N}_-]*`), dotted(`[\p{L}_][\p{L}\p{N}_]*`)
	return regexp.MustCompile(`^` + module + `:` + object + `(\(\))?$`)
}()

// validate makes the checks that need only c itself, whether its placeholders have been replaced or not.
func (c *Config) validate() error {
	if err := c.validateApp(); err != nil {
		return err
	}
	if err := c.validateRuntime(); err != nil {
		return err
	}
	if err := c.validateWebSocket(); err != nil {
		return err
	}
	if err := c.validateDynamic(); err != nil {
		return err
	}
	if err := c.validateScaling(); err != nil {
		return err
	}
	if err := validateTimeout("start_timeout", c.StartTimeout); err != nil {
		return err
	}
	if err := validateTimeout("drain_timeout", c.DrainTimeout); err != nil {
		return err
	}
	if err := c.validateRecycling(); err != nil {
		return err
	}
	if err := c.validateAutoreload(); err != nil {
		return err
	}
	if err := c.validateLimits(); err != nil {
		return err
	}
	if path, auto := c.rootPath(); !auto && !hasPlaceholder(path) && !strings.HasPrefix(c.RootPath, "/") {
		return wrong("root_path", "%q does not begin with a slash; write %q, or auto", path, "/"+path)
	}
	for _, name := range slices.Sorted(maps.Keys(c.EnvVars)) {
		if err := checkEnv(name, filled(c.EnvVars[name])); err != nil {
			return wrong("env_var", "%w", err)
		}
	}
	return nil
}

func (c *Config) validateApp() error {
	given := ""
	for _, module := range []struct{ setting, app string }{
		{"module_wsgi", c.ModuleWSGI}, {"module_asgi", c.ModuleASGI}, {"module_esgi", c.ModuleESGI},
	} {
		switch {
		case module.app == "":
		case given != "":
			return wrong(module.setting, "%s is given too; one python handler runs one app, keep the one that fits it", given)
		case !hasPlaceholder(module.app) && !appSpec.MatchString(filled(module.app)):
			return wrong(module.setting,
				"%q is not module:variable; write for example main:app, mysite.wsgi:application or main:make_app()", asWritten(module.app))
		default:
			given = module.setting
		}
	}
	if given == "" {
		return wrong("", "no app to run; give module_wsgi module:variable, or module_asgi or module_esgi")
	}
	return nil
}

// validateRuntime checks the settings that depend on the interface.
func (c *Config) validateRuntime() error {
	switch runtime := cmp.Or(c.WorkersRuntime, defaultWorkersRuntime); {
	case runtime != runtimeProcess && runtime != runtimeThread:
		return wrong("workers_runtime", "%q is unknown; use process or thread (default: %s)", runtime, defaultWorkersRuntime)
	case runtime == runtimeProcess && noProcesses != "":
		return wrong("workers_runtime", "%s", noProcesses)
	case runtime == runtimeProcess:
	case noThreads != "":
		return wrong("workers_runtime", "%s", noThreads)
	case c.Runtime == runtimeGevent || c.ModuleESGI != "":
		return wrong("workers_runtime", "gevent and ESGI patch a whole process, which with thread would be Caddy's; %s",
			advise("use process", "they do not run on Windows, so write the app for WSGI or ASGI, and leave out runtime gevent"))
	}

	iface, _ := c.app()
	kind, allowed := strings.ToUpper(iface), runtimes[iface]
	if c.Runtime != "" && !slices.Contains(allowed, c.Runtime) {
		return wrong("runtime", "%q does not run %s apps; use %s, or leave it out", c.Runtime, kind, strings.Join(allowed, " or "))
	}

	switch {
	case c.Threads < 0:
		return wrong("threads", "%d is not possible; give 1 or more, or leave it out for %d", c.Threads, defaultThreads)
	case c.Threads > 0 && iface == interfaceESGI:
		return wrong("threads", "an ESGI app runs each request in a greenlet, not in a thread; remove it, and raise workers instead")
	case c.Threads > 0 && iface == interfaceASGI:
		return wrong("threads", "an ASGI app runs in one event loop per worker, not in threads; remove it, and raise workers instead")
	case c.Threads > 0 && c.Runtime == runtimeGevent:
		return wrong("threads", "gevent runs each request in a greenlet, not in a thread; remove it, or use runtime sync")
	}

	switch c.Lifespan {
	case "", "off":
	case "on", "auto":
		if iface == interfaceESGI {
			return wrong("lifespan", "ESGI apps have __esgi_init__ and __esgi_del__ instead; remove it")
		}
		if iface != interfaceASGI {
			return wrong("lifespan", "%s apps have no lifespan protocol; remove it", kind)
		}
	default:
		return wrong("lifespan", "%q is unknown; use on, off or auto", c.Lifespan)
	}
	return nil
}

// hasPlaceholder reports that s can be checked only once its placeholders have been replaced.
func hasPlaceholder(s string) bool { return strings.ContainsRune(s, '{') }

// findWorkingDir returns the real path of working_dir, which must be a folder.
func (c *Config) findWorkingDir() (string, error) {
	dir, err := filepath.Abs(c.WorkingDir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", wrong("working_dir", "%q: %w; give the folder that the app is in", c.WorkingDir, withoutPath(err))
	}
	if info, err := os.Stat(dir); err != nil {
		return "", wrong("working_dir", "%q: %w; give the folder that the app is in", c.WorkingDir, withoutPath(err))
	} else if !info.IsDir() {
		return "", wrong("working_dir", "%q is a file; give the folder that the app is in", c.WorkingDir)
	}
	return dir, nil
}

// findPython returns the absolute path of the interpreter. Symlinks stay: a virtual environment's python is one, and
// Python knows the environment by the path it was started with.
func (c *Config) findPython(workingDir string) (string, error) {
	venv, err := c.findVenv(workingDir)
	if err != nil {
		return "", err
	}
	switch {
	case c.PythonPath != "":
		return c.findPythonPath(workingDir)
	case venv != "":
		return venv, nil
	}
	for _, name := range []string{"python3", "python"} {
		if python, err := exec.LookPath(name); err == nil {
			return filepath.Abs(python)
		}
	}
	return "", wrong("python_path", "neither python3 nor python is on PATH; install Python 3.10 or newer, or give python_path or venv")
}

func (c *Config) findPythonPath(workingDir string) (string, error) {
	path := c.PythonPath
	if filepath.Base(path) != path {
		path = locate(path, workingDir)
	}
	python, err := exec.LookPath(path)
	if err == nil {
		python, err = filepath.Abs(python)
	}
	if err != nil {
		return "", wrong("python_path", "%q: %w; give the path of a Python interpreter, or the name of one on PATH",
			c.PythonPath, withoutPath(err))
	}
	return python, nil
}

// findVenv returns the interpreter of the virtual environment, "" when none is set.
func (c *Config) findVenv(workingDir string) (string, error) {
	if c.VenvPath == "" {
		return "", nil
	}
	dir := locate(c.VenvPath, workingDir)
	if _, err := os.Stat(filepath.Join(dir, "pyvenv.cfg")); err != nil {
		if _, err := os.Stat(dir); err != nil {
			return "", wrong("venv", "%q: %w; create it with python3 -m venv %s", c.VenvPath, withoutPath(err), c.VenvPath)
		}
		return "", wrong("venv", "%q is not a virtual environment, it has no pyvenv.cfg; create one with python3 -m venv, or give python_path", c.VenvPath)
	}
	inVenv := filepath.Join("bin", "python")
	if runtime.GOOS == "windows" {
		inVenv = filepath.Join("Scripts", "python.exe")
	}
	python, err := exec.LookPath(filepath.Join(dir, inVenv))
	if err != nil {
		return "", wrong("venv", "%q is broken, %s: %w; create it again with python3 -m venv --clear %s",
			c.VenvPath, inVenv, withoutPath(err), c.VenvPath)
	}
	return python, nil
}

// locate makes path absolute. Like every path in a Caddy configuration it is relative to Caddy's current directory; if
// nothing is there but in workingDir, that is meant.
func locate(path, workingDir string) string {
	abs, err := filepath.Abs(path)
	if err != nil || filepath.IsAbs(path) {
		return path
	}
	if _, err := os.Stat(abs); errors.Is(err, fs.ErrNotExist) {
		if inWorkingDir := filepath.Join(workingDir, path); exists(inWorkingDir) {
			return inWorkingDir
		}
	}
	return abs
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// withoutPath strips the operation and path from err, for messages that name the path as the user wrote it.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	if execErr, ok := errors.AsType[*exec.Error](err); ok {
		return withoutPath(execErr.Err)
	}
	return err
}
