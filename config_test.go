package caddysnake

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// resolve does to c what a handler does with one that requests choose nothing of.
func (c *Config) resolve() (settings, error) {
	if err := c.prepare(); err != nil {
		return settings{}, err
	}
	return c.settings()
}

func TestDefaults(t *testing.T) {
	dir := testFolder(t)
	t.Chdir(dir)
	python := fakePython(t, dir, "python3")
	t.Setenv("PATH", dir)

	wsgi := Config{ModuleWSGI: "main:app"}
	got, err := wsgi.resolve()
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Interface: "wsgi", App: "main:app", Workers: runtime.GOMAXPROCS(0), Runtime: "sync", Threads: 8, Lifespan: "off",
		WorkersRuntime: defaultWorkersRuntime, WorkingDir: dir, Python: python, Env: []string{}, StartTimeout: 2 * time.Minute, DrainTimeout: 30 * time.Second,
		limits: limits{QueueSize: 10_000, QueueTimeout: 30 * time.Second},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	gevent := Config{ModuleWSGI: "main:app", Runtime: "gevent"}
	got, err = gevent.resolve()
	if err != nil {
		t.Fatal(err)
	}
	want.Runtime, want.Threads = "gevent", 1
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	esgi := Config{ModuleESGI: "main:app"}
	got, err = esgi.resolve()
	if err != nil {
		t.Fatal(err)
	}
	want.Interface = "esgi"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	asgi := Config{ModuleASGI: "main:app"}
	got, err = asgi.resolve()
	if err != nil {
		t.Fatal(err)
	}
	want.Interface, want.Runtime, want.Threads = "asgi", "auto", 1
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEverySettingIsResolved(t *testing.T) {
	dir := testFolder(t)
	python := fakePython(t, dir, "python3.12")
	file := writeFile(t, dir, ".env", "A=file\n")
	c := Config{
		ModuleASGI: "pkg.main:Factory.make()", Workers: 3, WorkersRuntime: "process", Runtime: "native", Lifespan: "on",
		WorkingDir: dir, PythonPath: python, EnvFiles: []string{file}, EnvVars: map[string]string{"B": "var"},
		StartTimeout: -1, DrainTimeout: caddy.Duration(time.Minute), RootPath: "/api/",
		LimitsConfig:  LimitsConfig{RequestTimeout: caddy.Duration(time.Hour), Queue: &QueueConfig{Size: 5, Timeout: -1}},
		ScalingConfig: ScalingConfig{MaxWorkers: 9, IdleTimeout: caddy.Duration(time.Second)},
	}
	got, err := c.resolve()
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Interface: "asgi", App: "pkg.main:Factory.make()", Workers: 3, Runtime: "native", Threads: 1, Lifespan: "on",
		WorkersRuntime: "process", WorkingDir: dir, Python: python, Env: []string{"A=file", "B=var"}, StartTimeout: 0,
		DrainTimeout: time.Minute, limits: limits{RequestTimeout: time.Hour, QueueSize: 5, QueueTimeout: 0},
		scaling: scaling{MaxWorkers: 9, IdleTimeout: time.Second},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if path, auto := c.rootPath(); path != "/api" || auto {
		t.Errorf("root path is %q, auto %v", path, auto)
	}
}

func TestRootPath(t *testing.T) {
	for setting, want := range map[string]string{"": "auto", "auto": "auto", "/": "", "/a": "/a", "/a/b/": "/a/b"} {
		c := Config{RootPath: setting}
		got, auto := c.rootPath()
		if auto {
			got = "auto"
		}
		if got != want {
			t.Errorf("%q is %q, want %q", setting, got, want)
		}
	}
}

func TestAppSpec(t *testing.T) {
	for _, spec := range []string{"main:app", "_a.b2:c", "mysite.wsgi:application", "main:obj.attr.app", "main:make_app()", "été:ñ", "a:b.c()",
		"my-app:app", "a-.b-c:d"} {
		if !appSpec.MatchString(spec) {
			t.Errorf("%q is refused", spec)
		}
	}
	for _, spec := range []string{
		"", "main", "main:", ":app", "main:app:x", "main app", "main:app(1)", "main:app()()", "main().x:app", "a/b:c", ".a:b",
		"a.:b", "a..b:c", "1a:b", "a:1", "a:b\n", "-a:b", "a.-b:c", "a:b-c", "main:app() ", "a:b().c",
	} {
		if appSpec.MatchString(spec) {
			t.Errorf("%q is accepted", spec)
		}
	}
}

// threadError is the message for a setting that does not go with workers_runtime thread, or that there are no threads.
func threadError(message string) string { return "workers_runtime: " + cmp.Or(noThreads, message) }

// onlyProcess is what a Caddy without threads says instead of setting's error.
func onlyProcess(setting, message string) string {
	if noThreads != "" {
		return threadError("")
	}
	return setting + ": " + message
}

const notDynamic = "it is for dynamic apps, and no setting has a placeholder of the request, such as {http.request.host.labels.2}; remove it"

// A wrong setting gives one line; these come from JSON, as loaded by Caddy.
func TestWrongSettings(t *testing.T) {
	dir := testFolder(t)
	t.Chdir(dir)
	fakePython(t, dir, "python3")
	t.Setenv("PATH", dir)
	t.Setenv("EMPTY", "")
	writeFile(t, dir, "file", "")
	if err := os.MkdirAll("plain/bin", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("broken", 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "broken"), "pyvenv.cfg", "")

	const appForms = " is not module:variable; write for example main:app, mysite.wsgi:application or main:make_app()"
	const appFolder = "; give the folder that the app is in"
	const interpreter = "; give the path of a Python interpreter, or the name of one on PATH"
	tests := []struct{ name, json, want string }{
		{"no module", `{}`, "no app to run; give module_wsgi module:variable, or module_asgi or module_esgi"},
		{"both modules", `{"module_wsgi": "a:b", "module_asgi": "a:b"}`,
			"module_asgi: module_wsgi is given too; one python handler runs one app, keep the one that fits it"},
		{"module_wsgi", `{"module_wsgi": "main.py"}`, `module_wsgi: "main.py"` + appForms},
		{"module_asgi", `{"module_asgi": "main:app("}`, `module_asgi: "main:app("` + appForms},
		{"workers", `{"module_wsgi": "a:b", "workers": -1}`, "workers: -1 is not possible; give 1 or more, or leave it out for one per CPU"},
		{"workers_runtime", `{"module_wsgi": "a:b", "workers_runtime": "fork"}`, `workers_runtime: "fork" is unknown; use process or thread (default: process)`},
		{"gevent in a thread", `{"module_wsgi": "a:b", "workers_runtime": "thread", "runtime": "gevent"}`, threadError("gevent and ESGI patch a whole process, " +
			"which with thread would be Caddy's; use process")},
		{"ESGI in a thread", `{"module_esgi": "a:b", "workers_runtime": "thread"}`, threadError("gevent and ESGI patch a whole process, " +
			"which with thread would be Caddy's; use process")},
		{"runtime", `{"module_asgi": "a:b", "runtime": "gevent"}`,
			`runtime: "gevent" does not run ASGI apps; use native or uvloop, or leave it out`},
		{"two modules with ESGI", `{"module_esgi": "a:b", "module_asgi": "a:b"}`,
			"module_esgi: module_asgi is given too; one python handler runs one app, keep the one that fits it"},
		{"module_esgi", `{"module_esgi": "a"}`,
			`module_esgi: "a" is not module:variable; write for example main:app, mysite.wsgi:application or main:make_app()`},
		{"runtime of ESGI", `{"module_esgi": "a:b", "runtime": "sync"}`,
			`runtime: "sync" does not run ESGI apps; use gevent, or leave it out`},
		{"threads of ESGI", `{"module_esgi": "a:b", "threads": 2}`,
			"threads: an ESGI app runs each request in a greenlet, not in a thread; remove it, and raise workers instead"},
		{"lifespan of ESGI", `{"module_esgi": "a:b", "lifespan": "auto"}`,
			"lifespan: ESGI apps have __esgi_init__ and __esgi_del__ instead; remove it"},
		{"threads", `{"module_wsgi": "a:b", "runtime": "gevent", "threads": 2}`,
			"threads: gevent runs each request in a greenlet, not in a thread; remove it, or use runtime sync"},
		{"threads", `{"module_wsgi": "a:b", "threads": -1}`, "threads: -1 is not possible; give 1 or more, or leave it out for 8"},
		{"threads under ASGI", `{"module_asgi": "a:b", "threads": 1}`,
			"threads: an ASGI app runs in one event loop per worker, not in threads; remove it, and raise workers instead"},
		{"lifespan", `{"module_asgi": "a:b", "lifespan": "yes"}`, `lifespan: "yes" is unknown; use on, off or auto`},
		{"lifespan under WSGI", `{"module_wsgi": "a:b", "lifespan": "on"}`, "lifespan: WSGI apps have no lifespan protocol; remove it"},
		{"lifespan auto under WSGI", `{"module_wsgi": "a:b", "lifespan": "auto"}`, "lifespan: WSGI apps have no lifespan protocol; remove it"},
		{"websocket under WSGI", `{"module_wsgi": "a:b", "websocket": {}}`, "websocket: a WSGI app takes no WebSockets; remove it"},
		{"ping_interval", `{"module_asgi": "a:b", "websocket": {"ping_interval": "-2s"}}`,
			"websocket ping_interval: -2s is not possible; give a duration such as 20s, or -1 for never"},
		{"ping_timeout", `{"module_asgi": "a:b", "websocket": {"ping_timeout": "-2s"}}`,
			"websocket ping_timeout: -2s is not possible; give a duration such as 20s, or -1 for never"},
		{"max_size", `{"module_asgi": "a:b", "websocket": {"max_size": -1}}`,
			"websocket max_size: -1 is not possible; give a number of bytes, or leave it out for 16 MiB"},
		{"compression", `{"module_asgi": "a:b", "websocket": {"compression": "gzip"}}`, `websocket compression: "gzip" is unknown; use on or off`},
		{"start_timeout", `{"module_wsgi": "a:b", "start_timeout": "-2s"}`,
			"start_timeout: -2s is not possible; give a duration such as 120s or 5m, or -1 for no limit"},
		{"drain_timeout", `{"module_wsgi": "a:b", "drain_timeout": "-2s"}`,
			"drain_timeout: -2s is not possible; give a duration such as 120s or 5m, or -1 for no limit"},
		{"max_requests", `{"module_wsgi": "a:b", "max_requests": -1}`,
			"max_requests: -1 is not possible; give 1 or more, or leave it out for no limit"},
		{"jitter", `{"module_wsgi": "a:b", "max_requests": 1, "max_requests_jitter": -1}`,
			"max_requests: a jitter of -1 is not possible; give 1 or more, or leave it out"},
		{"jitter alone", `{"module_wsgi": "a:b", "max_requests_jitter": 1}`,
			"max_requests: there is a jitter (max_requests_jitter) but no max_requests; give both, or none"},
		{"max_memory", `{"module_wsgi": "a:b", "max_memory": 1000}`,
			"max_memory: 1000 bytes are hardly more than Python takes for itself; give 32 MiB or more"},
		{"max_memory of a thread", `{"module_wsgi": "a:b", "workers_runtime": "thread", "max_memory": 100000000}`, onlyProcess("max_memory",
			"a thread's memory is that of Caddy's whole process; remove it, or use workers_runtime process")},
		{"max_age", `{"module_wsgi": "a:b", "max_age": "-1h"}`,
			"max_age: -1h0m0s is not possible; give a duration such as 12h, or leave it out for no limit"},
		{"autoreload", `{"module_wsgi": "a:b", "autoreload": "yes"}`, `autoreload: "yes" is unknown; use on, browser or off`},
		{"max_workers", `{"module_wsgi": "a:b", "max_workers": -1}`, "workers: at most -1 is not possible; give 1 or more, or leave it out"},
		{"idle_timeout", `{"module_wsgi": "a:b", "max_workers": 2, "idle_timeout": "-2s"}`, "idle_timeout: -2s is not possible; give a duration such as 5m"},
		{"scaling of threads", `{"module_wsgi": "a:b", "workers_runtime": "thread", "max_workers": 2}`, onlyProcess("workers",
			"a thread costs next to nothing while it is idle, so their number does not change; give one number, or use workers_runtime process")},
		{"request_timeout", `{"module_wsgi": "a:b", "request_timeout": "-2s"}`,
			"request_timeout: -2s is not possible; give a duration such as 120s or 5m, or -1 for no limit"},
		{"queue size", `{"module_wsgi": "a:b", "queue": {"size": -1}}`, "queue size: -1 is not possible; give 1 or more, or leave it out for 10000"},
		{"queue timeout", `{"module_wsgi": "a:b", "queue": {"timeout": "-2s"}}`,
			"queue timeout: -2s is not possible; give a duration such as 120s or 5m, or -1 for no limit"},
		{"root_path", `{"module_wsgi": "a:b", "root_path": "api"}`, `root_path: "api" does not begin with a slash; write "/api", or auto`},
		{"no working_dir", `{"module_wsgi": "a:b", "working_dir": "none"}`, `working_dir: "none": no such file or directory` + appFolder},
		{"working_dir is a file", `{"module_wsgi": "a:b", "working_dir": "file"}`, `working_dir: "file" is a file` + appFolder},
		{"no venv", `{"module_wsgi": "a:b", "venv_path": ".venv"}`, `venv: ".venv": no such file or directory; create it with python3 -m venv .venv`},
		{"no virtual environment", `{"module_wsgi": "a:b", "venv_path": "plain"}`,
			`venv: "plain" is not a virtual environment, it has no pyvenv.cfg; create one with python3 -m venv, or give python_path`},
		{"broken venv", `{"module_wsgi": "a:b", "venv_path": "broken"}`,
			`venv: "broken" is broken, bin/python: no such file or directory; create it again with python3 -m venv --clear broken`},
		{"venv is checked although python_path wins", `{"module_wsgi": "a:b", "venv_path": ".venv", "python_path": "python3"}`,
			`venv: ".venv": no such file or directory; create it with python3 -m venv .venv`},
		{"no python_path", `{"module_wsgi": "a:b", "python_path": "./python3.99"}`, `python_path: "./python3.99": no such file or directory` + interpreter},
		{"python_path not on PATH", `{"module_wsgi": "a:b", "python_path": "python3.99"}`,
			`python_path: "python3.99": executable file not found in $PATH` + interpreter},
		{"python_path is no program", `{"module_wsgi": "a:b", "python_path": "./file"}`, `python_path: "./file": permission denied` + interpreter},
		{"python_path is a folder", `{"module_wsgi": "a:b", "python_path": "./plain"}`, `python_path: "./plain": is a directory` + interpreter},
		{"env_var", `{"module_wsgi": "a:b", "env_vars": {"PYTHONUNBUFFERED": "0"}}`,
			"env_var: PYTHONUNBUFFERED is refused, Caddy Snake sets it so that output reaches the log at once; remove it"},
		{"env_file", `{"module_wsgi": "a:b", "env_files": [".env"]}`, `env_file: ".env" in working_dir ` + dir +
			": no such file or directory; a relative path must lie within working_dir, symlinks resolved; give an absolute path for a file elsewhere"},
		{"unknown placeholder", `{"module_wsgi": "{host}:app"}`,
			`module_wsgi: "{host}:app": unrecognized placeholder {host}; only placeholders of the request, such as {http.request.host.labels.2}, and global ones, such as {env.NAME}, that are not empty are allowed here`},
		{"empty placeholder", `{"module_wsgi": "a:b", "working_dir": "{env.EMPTY}"}`,
			`working_dir: "{env.EMPTY}": evaluated placeholder {env.EMPTY} is empty; only placeholders of the request, such as {http.request.host.labels.2}, and global ones, such as {env.NAME}, that are not empty are allowed here`},
		{"placeholder of the request in python_path", `{"module_wsgi": "a:b", "python_path": "/opt/{http.request.host}/python"}`,
			`python_path: "/opt/{http.request.host}/python": unrecognized placeholder {http.request.host}; only global placeholders, such as {env.NAME}, that are not empty are allowed here`},
		{"placeholder of the request in root_path", `{"module_wsgi": "a:b", "root_path": "/{http.request.host}"}`,
			`root_path: "/{http.request.host}": unrecognized placeholder {http.request.host}; only global placeholders, such as {env.NAME}, that are not empty are allowed here`},
		{"NUL", `{"module_wsgi": "a:b", "working_dir": "a\u0000b"}`, "working_dir: it contains a NUL byte; remove it"},
		{"NUL in a variable", `{"module_wsgi": "a:b", "env_vars": {"A": "s3cret\u0000"}}`, "env_var: it contains a NUL byte; remove it"},
		{"max_dynamic_apps", `{"module_wsgi": "{http.request.host}:b", "max_dynamic_apps": -1}`,
			"max_dynamic_apps: -1 is not possible; give a number of apps, 0 for no limit, or leave it out for 128"},
		{"max_dynamic_apps of an app that is not dynamic", `{"module_wsgi": "a:b", "max_dynamic_apps": 0}`, "max_dynamic_apps: " + notDynamic},
		{"dynamic_idle_timeout", `{"module_wsgi": "a:b", "dynamic_idle_timeout": -2}`,
			"dynamic_idle_timeout: -2ns is not possible; give a duration such as 30m, or -1 for no limit"},
		{"dynamic_idle_timeout of an app that is not dynamic", `{"module_wsgi": "a:b", "dynamic_idle_timeout": -1}`, "dynamic_idle_timeout: " + notDynamic},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var c Config
			if err := json.Unmarshal([]byte(test.json), &c); err != nil {
				t.Fatal(err)
			}
			_, err := c.resolve()
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if _, ok := errors.AsType[*settingError](err); !ok {
				t.Errorf("%T does not name the setting", err)
			}
		})
	}
}

func TestNoPythonOnPath(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c := Config{ModuleWSGI: "a:b"}
	_, err := c.resolve()
	want := "python_path: neither python3 nor python is on PATH; install Python 3.10 or newer, or give python_path or venv"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestInterpreter(t *testing.T) {
	dir := testFolder(t)
	t.Chdir(dir)
	for _, folder := range []string{"path", "venv/bin", "app/inner/bin"} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	onPath := fakePython(t, filepath.Join(dir, "path"), "python")
	custom := fakePython(t, dir, "custom")
	writeFile(t, filepath.Join(dir, "venv"), "pyvenv.cfg", "")
	writeFile(t, filepath.Join(dir, "app/inner"), "pyvenv.cfg", "")
	venv, inner := filepath.Join(dir, "venv/bin/python"), filepath.Join(dir, "app/inner/bin/python")
	link(t, custom, venv)
	link(t, custom, inner)
	t.Setenv("PATH", filepath.Join(dir, "path"))
	t.Setenv("VENV", "venv")

	tests := []struct {
		name   string
		config Config
		want   string
	}{
		{"python, when there is no python3", Config{}, onPath},
		{"a virtual environment's, not what it links to", Config{VenvPath: "venv"}, venv},
		{"an absolute virtual environment", Config{VenvPath: filepath.Join(dir, "venv"), WorkingDir: "app"}, venv},
		{"relative to Caddy's directory, not to working_dir", Config{VenvPath: "venv", WorkingDir: "app"}, venv},
		{"in working_dir, when it is only there", Config{VenvPath: "inner", WorkingDir: "app"}, inner},
		{"a placeholder", Config{VenvPath: "{env.VENV}"}, venv},
		{"python_path wins over the virtual environment", Config{VenvPath: "venv", PythonPath: "./custom"}, custom},
		{"a command on PATH", Config{PythonPath: "python"}, onPath},
		{"relative to working_dir, when it is only there", Config{PythonPath: "inner/bin/python", WorkingDir: "app"}, inner},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.config.ModuleWSGI = "main:app"
			got, err := test.config.resolve()
			if err != nil || got.Python != test.want {
				t.Errorf("got %q, %v, want %q", got.Python, err, test.want)
			}
		})
	}
}

func TestWorkingDirIsItsRealPath(t *testing.T) {
	dir := testFolder(t)
	t.Chdir(dir)
	fakePython(t, dir, "python3")
	t.Setenv("PATH", dir)
	if err := os.Mkdir("release-1", 0o700); err != nil {
		t.Fatal(err)
	}
	link(t, "release-1", "current")

	c := Config{ModuleWSGI: "main:app", WorkingDir: "current"}
	got, err := c.resolve()
	if want := filepath.Join(dir, "release-1"); err != nil || got.WorkingDir != want {
		t.Errorf("got %q, %v, want %q", got.WorkingDir, err, want)
	}
}

func TestPlaceholdersInEnvVars(t *testing.T) {
	dir := testFolder(t)
	fakePython(t, dir, "python3")
	t.Setenv("PATH", dir)
	t.Setenv("SECRET", "s3cret")
	c := Config{ModuleWSGI: "main:app", WorkingDir: dir, EnvVars: map[string]string{"A": "{env.SECRET}", "B": `{"json": {}}`}}
	got, err := c.resolve()
	if want := []string{"A=s3cret", `B={"json": {}}`}; err != nil || !reflect.DeepEqual(got.Env, want) {
		t.Errorf("got %q, %v, want %q", got.Env, err, want)
	}
}

// Whatever differs between two settings, their keys differ.
func TestKeyHoldsEverySetting(t *testing.T) {
	base := settings{Env: []string{"A=1"}}
	keys := map[string]string{base.key(): "nothing"}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		if field.Anonymous {
			continue // its fields come by themselves
		}
		changed := base
		name, field := field.Name, reflect.ValueOf(&changed).Elem().FieldByIndex(field.Index)
		switch field.Kind() {
		case reflect.String:
			field.SetString("x")
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int, reflect.Int64:
			field.SetInt(7)
		default:
			changed.Env, changed.Confined = []string{"A=2"}, nil
			if name == "Confined" {
				changed.Env, changed.Confined = base.Env, []confined{{Root: "/", Path: "/a"}}
			}
		}
		if other, taken := keys[changed.key()]; taken {
			t.Errorf("changing %s gives the key of changing %s", name, other)
		}
		keys[changed.key()] = name
	}
	if (settings{Env: []string{`A=1", "B=2`}}).key() == (settings{Env: []string{"A=1", "B=2"}}).key() {
		t.Error("a value is taken for two variables")
	}
	if (settings{Env: []string{"A=\xff"}}).key() == (settings{Env: []string{"A=\xfe"}}).key() {
		t.Error("bytes that are not UTF-8 are not told apart")
	}
}

// `caddy validate` provisions everything: that must find mistakes and start no Python.
func TestValidateStartsNoPython(t *testing.T) {
	dir := testFolder(t)
	started := filepath.Join(dir, "started")
	python := filepath.Join(dir, "python")
	if err := os.WriteFile(python, []byte("#!/bin/sh\ntouch '"+started+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	validate := func(directive string) error {
		config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\nadmin off\n}\nhttp://:0 {\n"+directive+"\n}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var parsed caddy.Config
		if err := json.Unmarshal(config, &parsed); err != nil {
			t.Fatal(err)
		}
		return caddy.Validate(&parsed)
	}

	if err := validate("python {\nmodule_wsgi main:app\npython_path " + python + "\n}"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(started); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Python was started: %v", err)
	}
	err := validate("python {\nmodule_wsgi main:app\nworking_dir " + dir + "/none\npython_path " + python + "\n}")
	want := `provision http.handlers.python: working_dir: "` + dir + `/none": no such file or directory; give the folder that the app is in`
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v\nwant it to end in %s", err, want)
	}
}

// testFolder returns the real path of a folder of the test's own.
func testFolder(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// fakePython makes a program that nothing is to start.
func fakePython(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 99\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Where workers cannot be processes, nothing that does not go with threads tells to make them processes.
func TestNobodyIsSentToProcessesWhereThereAreNone(t *testing.T) {
	before := noProcesses
	noProcesses = "process is not available on Windows"
	t.Cleanup(func() { noProcesses = before })
	const patched = "gevent and ESGI patch a whole process, which with thread would be Caddy's; " +
		"they do not run on Windows, so write the app for WSGI or ASGI, and leave out runtime gevent"
	for config, want := range map[string]string{
		`{"module_esgi": "a:b", "workers_runtime": "thread"}`:                      threadError(patched),
		`{"module_wsgi": "a:b", "workers_runtime": "thread", "runtime": "gevent"}`: threadError(patched),
		`{"module_wsgi": "a:b", "workers_runtime": "thread", "max_memory": 100000000}`: onlyProcess("max_memory",
			"a thread's memory is that of Caddy's whole process; remove it"),
		`{"module_wsgi": "a:b", "workers_runtime": "thread", "max_workers": 2}`: onlyProcess("workers",
			"a thread costs next to nothing while it is idle, so their number does not change; give one number"),
	} {
		var c Config
		if err := json.Unmarshal([]byte(config), &c); err != nil {
			t.Fatal(err)
		}
		if err := c.prepare(); err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", config, err, want)
		}
	}

	dir := folderWith(t, "main.py")
	thread := settings{App: "main:app", WorkingDir: dir, WorkersRuntime: runtimeThread}
	variable, folder := thread, thread
	variable.Env, folder.WorkingDir = []string{"A=1"}, folderWith(t, "main.py")
	for other, want := range map[*settings]string{
		&variable: "set A differently: give both the same variables",
		&folder:   `both folders have a module "main": rename one`,
	} {
		if err := checkSharing(thread, *other); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
