package caddysnake

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// DynamicConfig says how many of the apps run that requests choose; see Config for when they do.
type DynamicConfig struct {
	// How many dynamic apps have workers at a time, at least 1; 0: no limit. Another one takes the place of the least
	// recently used one that is idle; if all are busy, the request gets a 503. Default: 128.
	MaxDynamicApps *int `json:"max_dynamic_apps,omitempty"`

	// How long a dynamic app may be idle before its workers are stopped. Default: 30m; -1: for ever.
	DynamicIdleTimeout caddy.Duration `json:"dynamic_idle_timeout,omitempty"`
}

const (
	defaultMaxDynamicApps     = 128
	defaultDynamicIdleTimeout = 30 * time.Minute
)

// placeholderMark stands before and behind the name of each placeholder that only a request can replace, in a Config whose
// other placeholders have been replaced. No setting has a NUL otherwise.
const placeholderMark = "\x00"

// keepForRequests is a caddy.ReplacerFunc that leaves placeholders of requests to the requests.
func keepForRequests(name string) (any, bool) {
	if strings.HasPrefix(name, "http.") {
		return placeholderMark + name + placeholderMark, true
	}
	return nil, false
}

// fill replaces what keepForRequests has left.
func fill(text string, value func(placeholder string) string) string {
	if !strings.Contains(text, placeholderMark) {
		return text
	}
	parts := strings.Split(text, placeholderMark)
	for i := 1; i < len(parts); i += 2 {
		parts[i] = value(parts[i])
	}
	return strings.Join(parts, "")
}

// asWritten returns text as it stands in the configuration.
func asWritten(text string) string {
	return fill(text, func(placeholder string) string { return "{" + placeholder + "}" })
}

// filled returns text as it may look for some request.
func filled(text string) string {
	return fill(text, func(string) string { return "x" })
}

// forRequests calls f with each setting in which a request may have a part. f may change it, if it is c's own.
func (c *Config) forRequests(f func(setting string, value *string) error) error {
	for _, field := range []struct {
		setting string
		value   *string
	}{
		{"module_wsgi", &c.ModuleWSGI},
		{"module_asgi", &c.ModuleASGI},
		{"module_esgi", &c.ModuleESGI},
		{"working_dir", &c.WorkingDir},
		{"venv", &c.VenvPath},
	} {
		if err := f(field.setting, field.value); err != nil {
			return err
		}
	}
	for i := range c.EnvFiles {
		if err := f("env_file", &c.EnvFiles[i]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.EnvVars)) {
		value := c.EnvVars[name]
		if err := f("env_var", &value); err != nil {
			return err
		}
		c.EnvVars[name] = value
	}
	return nil
}

// own copies what forRequests gives to be changed.
func (c *Config) own() {
	c.EnvFiles = slices.Clone(c.EnvFiles)
	c.EnvVars = maps.Clone(c.EnvVars)
}

// isDynamic tells whether requests have a part in the settings, now that other placeholders have been replaced.
func (c *Config) isDynamic() bool { return c.anyHas(placeholderMark) }

func (c *Config) anyHas(part string) (found bool) {
	_ = c.forRequests(func(_ string, value *string) error {
		found = found || strings.Contains(*value, part)
		return nil
	})
	return found
}

// validateDynamic checks what concerns dynamic apps.
func (c *Config) validateDynamic() error {
	if c.MaxDynamicApps != nil && *c.MaxDynamicApps < 0 {
		return wrong("max_dynamic_apps", "%d is not possible; give a number of apps, 0 for no limit, or leave it out for %d",
			*c.MaxDynamicApps, defaultMaxDynamicApps)
	}
	if c.DynamicIdleTimeout < 0 && c.DynamicIdleTimeout != forever {
		return wrong("dynamic_idle_timeout", "%s is not possible; give a duration such as 30m, or -1 for no limit",
			time.Duration(c.DynamicIdleTimeout))
	}
	dynamic := c.isDynamic()
	if !dynamic && !c.anyHas("{") {
		const only = "it is for dynamic apps, and no setting has a placeholder of the request, such as {http.request.host.labels.2}; remove it"
		switch {
		case c.MaxDynamicApps != nil:
			return wrong("max_dynamic_apps", only)
		case c.DynamicIdleTimeout != 0:
			return wrong("dynamic_idle_timeout", only)
		}
	}
	if dynamic && cmp.Or(c.WorkersRuntime, defaultWorkersRuntime) == runtimeThread {
		return wrong("workers_runtime", "dynamic apps need processes: all threads share one interpreter, with one module of each name and "+
			"one environment, and it forgets no app; %s", advise("use process", "there are none here, so write a handler for each app"))
	}
	return c.forRequests(func(setting string, value *string) error {
		_, behind, found := strings.Cut(*value, placeholderMark)
		switch {
		case !found:
			return nil
		case strings.HasPrefix(setting, "module_"):
			if _, variable, _ := strings.Cut(*value, ":"); strings.Contains(variable, placeholderMark) {
				return wrong(setting, "%q: a request may choose the module, not what is behind the colon; write for example {http.request.host.labels.2}:app",
					asWritten(*value))
			}
		case setting != "env_var" && slices.Contains(strings.Split(behind, "/"), ".."):
			return wrong(setting, "%q: no .. may follow a placeholder; write the folder without it", asWritten(*value))
		}
		return nil
	})
}

// appTemplate is the settings of dynamic apps: a Config that needs a request's values to become the settings of one app.
type appTemplate struct {
	config       Config
	placeholders []string        // those of requests, each once
	identifiers  map[string]bool // those of them that stand in the module
	root         string          // the real path of the folder below which all working_dirs are; "" if they are one
	venvRoot     string          // likewise for venv
	maxApps      int             // 0: no limit
	idleTimeout  time.Duration   // 0: for ever
}

// newTemplate checks c, which is dynamic and valid, as far as that can be without a request. It starts no Python. An error
// is a *settingError.
func newTemplate(c Config) (*appTemplate, error) {
	c.own()
	t := &appTemplate{
		identifiers: map[string]bool{}, maxApps: defaultMaxDynamicApps,
		idleTimeout: limit(c.DynamicIdleTimeout, defaultDynamicIdleTimeout),
	}
	if c.MaxDynamicApps != nil {
		t.maxApps = *c.MaxDynamicApps
	}
	if c.Workers == 0 && c.MaxWorkers == 0 {
		c.Workers = 1
	}
	c.RootPath, c.WebSocket = "", nil // they make no other app
	_ = c.forRequests(func(setting string, value *string) error {
		fill(*value, func(placeholder string) string {
			if !slices.Contains(t.placeholders, placeholder) {
				t.placeholders = append(t.placeholders, placeholder)
			}
			if strings.HasPrefix(setting, "module_") {
				t.identifiers[placeholder] = true
			}
			return ""
		})
		return nil
	})
	var err error
	if t.root, err = fixedFolder("working_dir", &c.WorkingDir); err != nil {
		return nil, err
	}
	if t.root == "" {
		if _, err := c.findWorkingDir(); err != nil {
			return nil, err
		}
		if c.WorkingDir, err = filepath.Abs(c.WorkingDir); err != nil { // links stay, for locate to follow
			return nil, wrong("working_dir", "%q: %w; give an absolute path", c.WorkingDir, err)
		}
	}
	if t.venvRoot, err = fixedFolder("venv", &c.VenvPath); err != nil {
		return nil, err
	}
	c.confinedTo = map[string]string{}
	for i, file := range c.EnvFiles {
		if !filepath.IsAbs(file) { // it is confined to working_dir
			continue
		}
		root, err := fixedFolder("env_file", &c.EnvFiles[i])
		if err != nil {
			return nil, err
		}
		c.confinedTo[c.EnvFiles[i]] = root
	}
	t.config = c
	return t, t.checkFixed()
}

// fixedFolder returns the real path of the folder that a path names before the first placeholder, and has the path begin
// with it. It returns "" if requests have no part in the path.
func fixedFolder(setting string, path *string) (string, error) {
	if !strings.Contains(*path, placeholderMark) {
		return "", nil
	}
	written := asWritten(*path)
	if !filepath.IsAbs(*path) {
		dir, err := os.Getwd()
		if err != nil {
			return "", wrong(setting, "%q: %w; give an absolute path", written, err)
		}
		*path = dir + "/" + *path // not Join, which would look for dots in placeholders
	}
	fixed, _, _ := strings.Cut(*path, placeholderMark)
	fixed = fixed[:strings.LastIndexByte(fixed, '/')+1]
	root, err := filepath.EvalSymlinks(fixed)
	if err != nil {
		return "", wrong(setting, "%q: %q: %w; make the folder, or correct its name", written, fixed, withoutPath(err))
	}
	*path = strings.TrimRight(root, "/") + "/" + (*path)[len(fixed):]
	return root, nil
}

// checkFixed checks the paths that no request has a part in. Relative ones may be in working_dir.
func (t *appTemplate) checkFixed() error {
	c := &t.config
	isKnown := func(path string) bool {
		return path != "" && !strings.Contains(path, placeholderMark) && (t.root == "" || filepath.IsAbs(path))
	}
	if isKnown(c.VenvPath) {
		if _, err := c.findVenv(c.WorkingDir); err != nil {
			return err
		}
	}
	if isKnown(c.PythonPath) || filepath.Base(c.PythonPath) == c.PythonPath || c.PythonPath == "" && c.VenvPath == "" {
		if _, err := c.findPython(c.WorkingDir); err != nil {
			return err
		}
	}
	for _, file := range c.EnvFiles {
		if isKnown(file) {
			if _, err := readEnvFile(file, c.envRoot(file, c.WorkingDir)); err != nil {
				return wrong("env_file", "%w", err)
			}
		}
	}
	return nil
}

// key tells templates apart in a caddy.UsagePool. Like settings.key, it holds values of environment variables.
func (t *appTemplate) key() string {
	config, err := json.Marshal(t.config)
	if err != nil {
		panic(err) // a Config can be marshalled: it comes from JSON
	}
	texts := []string{t.root, t.venvRoot, t.config.PythonPath} // JSON does not tell bytes apart that are not UTF-8
	_ = t.config.forRequests(func(_ string, value *string) error {
		texts = append(texts, *value)
		return nil
	})
	return fmt.Sprintf("dynamic %q %s", texts, config)
}

// isOpen tells whether requests choose nothing that must be there.
func (t *appTemplate) isOpen() bool {
	c := t.config
	c.EnvVars = nil
	return !c.isDynamic()
}

// noApp is why a request has no app: its values are not possible, or there is nothing of that name.
type noApp struct{ error }

func (e *noApp) Unwrap() error { return e.error }

// notFound returns the error of a look at what a request has chosen: a *noApp if it says what is there, or is not. If the
// machine could not look, for want of descriptors or rights or because a disk fails, nobody knows, and it stays as it is.
func notFound(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok || errors.Is(errno, fs.ErrNotExist) {
		return &noApp{err}
	}
	switch errno {
	case syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG:
		return &noApp{err}
	}
	return err
}

// identifierASCII is what a label must be, too, where it names a Python module.
var identifierASCII = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// values returns what the request has for each placeholder. It touches no file. An error is a *noApp.
func (t *appTemplate) values(r *http.Request) ([]string, error) {
	replacer, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return nil, &noApp{errors.New("the request has no placeholders")}
	}
	values := make([]string, len(t.placeholders))
	for i, placeholder := range t.placeholders {
		value, _ := replacer.GetString(placeholder)
		switch host := isHost(placeholder); {
		case t.identifiers[placeholder] && !(isLabel(value) && identifierASCII.MatchString(value)):
			return nil, &noApp{fmt.Errorf("{%s}: %.80q cannot be a module", placeholder, value)}
		case isLabel(value), host && isHostName(value):
		default:
			return nil, &noApp{fmt.Errorf("{%s}: %.80q is not letters, digits, - and _", placeholder, value)}
		}
		if strings.HasPrefix(placeholder, "http.request.host") || isHost(placeholder) {
			value = strings.ToLower(value)
		}
		values[i] = value
	}
	return values, nil
}

// isHost tells whether a placeholder stands for a whole host name.
func isHost(placeholder string) bool {
	return placeholder == "http.request.host" || placeholder == "http.request.tls.server_name"
}

// fill returns the Config of the app that these values choose.
func (t *appTemplate) fill(values []string) Config {
	c := t.config
	c.own()
	c.confinedTo = maps.Clone(c.confinedTo)
	_ = c.forRequests(func(_ string, value *string) error {
		before := *value
		*value = fill(before, func(placeholder string) string { return values[slices.Index(t.placeholders, placeholder)] })
		if root := t.config.confinedTo[before]; root != "" {
			c.confinedTo[*value] = root
		}
		return nil
	})
	return c
}

// locate returns the Config of the app that these values choose, with the real path of its working_dir, and what they choose
// on disk. It fails with a *noApp if that is not there, or leads out of where it must be.
func (t *appTemplate) locate(values []string) (Config, []confined, error) {
	c := t.fill(values)
	var chosen []confined
	choose := func(setting, root string, path *string) error {
		found, err := below(root, filepath.Clean(*path))
		if err != nil {
			return fmt.Errorf("%s: %q: %w", setting, *path, err)
		}
		*path = found
		chosen = append(chosen, confined{root, found})
		return nil
	}
	if t.root != "" {
		if err := choose("working_dir", t.root, &c.WorkingDir); err != nil {
			return c, nil, notFound(err)
		}
	} else {
		var err error
		if c.WorkingDir, err = c.findWorkingDir(); err != nil {
			return c, nil, err // it is the same for all, and no request's fault
		}
	}
	switch {
	case t.venvRoot != "":
		if err := choose("venv", t.venvRoot, &c.VenvPath); err != nil {
			return c, nil, notFound(err)
		}
	case c.VenvPath != "" && t.root != "":
		// It may be in the working_dir that the request chose, and then it stays where that must stay. One that is nowhere
		// is missing there: in Caddy's current directory it would be everybody's.
		if c.VenvPath = locate(c.VenvPath, c.WorkingDir); !exists(c.VenvPath) && !filepath.IsAbs(t.config.VenvPath) {
			c.VenvPath = filepath.Join(c.WorkingDir, t.config.VenvPath)
		}
		if isBelow(c.WorkingDir, c.VenvPath) {
			err := choose("venv", t.root, &c.VenvPath)
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w; create it with python3 -m venv %s", err, c.VenvPath)
			}
			if err != nil {
				return c, nil, err // whoever made that folder has to be told
			}
		}
	}
	for i, file := range c.EnvFiles {
		if strings.Contains(t.config.EnvFiles[i], placeholderMark) {
			if err := existsIn(c.envRoot(file, c.WorkingDir), file); err != nil {
				return c, nil, notFound(fmt.Errorf("env_file: %q: %w", file, withoutPath(err)))
			}
		}
	}
	if _, app := t.config.app(); strings.Contains(app, placeholderMark) {
		_, filled := c.app()
		path, err := findModule(c.WorkingDir, app, filled)
		if err != nil {
			return c, nil, notFound(fmt.Errorf("module %q: %w", filled, err))
		}
		chosen = append(chosen, confined{c.WorkingDir, path})
	}
	return c, chosen, nil
}

// findModule returns the file or folder in dir of the module whose name a request has completed: no symlink, and nothing
// that could be imported from elsewhere. app is the setting, filled what the request has made of it.
func findModule(dir, app, filled string) (string, error) {
	if !appSpec.MatchString(filled) {
		return "", errors.New("it is not module:variable")
	}
	fixed := strings.Split(app[strings.LastIndex(app, placeholderMark):], ":")[0] // what follows the last placeholder
	module, _, _ := strings.Cut(filled, ":")
	names := strings.Split(module, ".")
	names = names[:len(names)-strings.Count(fixed, ".")]
	path := filepath.Join(dir, filepath.Join(names...))
	info, err := os.Lstat(path)
	if err == nil && info.IsDir() {
		return path, nil
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		path += ".py"
		info, err = os.Lstat(path)
	}
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	return path, withoutPath(err)
}

// existsIn tells whether there is a file in the folder root that path leads to.
func existsIn(root, path string) error {
	file, err := openIn(root, path)
	if err != nil {
		return err
	}
	return file.Close()
}

// resolve returns the settings of the app that these values choose. It fails with a *noApp as locate does, and with a
// *settingError as Config.settings does.
func (t *appTemplate) resolve(values []string) (settings, error) {
	c, chosen, err := t.locate(values)
	if err != nil {
		return settings{}, err
	}
	s, err := c.settings()
	switch {
	case errors.Is(err, fs.ErrNotExist) && t.isGone(values):
		return settings{}, &noApp{err}
	case err != nil:
		return settings{}, err
	case s.WorkingDir != c.WorkingDir:
		return settings{}, fmt.Errorf("%q: %w", c.WorkingDir, errMoved)
	}
	s.Confined = chosen
	if t.root != "" {
		info, err := os.Lstat(s.WorkingDir)
		if err != nil {
			return settings{}, fmt.Errorf("%q: %w", c.WorkingDir, errMoved)
		}
		s.Folder = folderID(info)
	}
	return s, nil
}

// isReplaced tells whether the working_dir that a request has chosen is another folder by now: another version of the app,
// or another customer's. It is not if that cannot be told.
func (s *settings) isReplaced() bool {
	if s.Folder == "" {
		return false
	}
	info, err := os.Lstat(s.WorkingDir)
	return err == nil && folderID(info) != s.Folder
}

// isGone tells whether what these values choose is there no longer. It is not gone if that cannot be told.
func (t *appTemplate) isGone(values []string) bool {
	_, _, err := t.locate(values)
	_, gone := errors.AsType[*noApp](err)
	return gone
}

func setMaxDynamicApps(c *Config, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil || count < 0 {
		return wrong("max_dynamic_apps", "%q is not possible; give a number of apps, or 0 for no limit", args[0])
	}
	c.MaxDynamicApps = &count
	return nil
}
