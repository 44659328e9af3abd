package caddysnake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// dynamicTemplate makes the template of a Config in JSON.
func dynamicTemplate(config string) (*appTemplate, error) {
	var c Config
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return nil, err
	}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if !c.isDynamic() {
		return nil, errors.New("it is not dynamic")
	}
	return newTemplate(c)
}

// requestFor is a request as Caddy passes it on.
func requestFor(host, target string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = host
	r.URL.Path = target
	replacer := caddy.NewReplacer()
	r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, replacer))
	return caddyhttp.PrepareRequest(r, replacer, httptest.NewRecorder(), nil)
}

// tenants makes a folder with these folders in it, and an interpreter on PATH.
func tenants(t *testing.T, names ...string) string {
	t.Helper()
	root := testFolder(t)
	bin := testFolder(t)
	fakePython(t, bin, "python3")
	t.Setenv("PATH", bin)
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDynamicSettings(t *testing.T) {
	root := tenants(t, "sites/alice/app", "venvs/alice/bin", "env")
	writeFile(t, root, "env/alice.env", "A=1\n")
	writeFile(t, root, "sites/alice/app/alice_app.py", "")
	writeFile(t, root, "venvs/alice/pyvenv.cfg", "")
	python := fakePython(t, filepath.Join(root, "venvs/alice/bin"), "python")
	link(t, filepath.Join(root, "sites"), filepath.Join(root, "linked"))
	t.Setenv("ROOT", root)
	template, err := dynamicTemplate(`{
		"module_asgi": "{http.request.uri.path.0}:app",
		"working_dir": "{env.ROOT}/linked/{http.request.host.labels.2}/app/",
		"venv_path": "{env.ROOT}/venvs/{http.request.host.labels.2}",
		"env_files": ["{env.ROOT}/env/{http.request.host.labels.2}.env"],
		"env_vars": {"B": "{http.request.host}", "C": "{\"a\": {}}"},
		"max_dynamic_apps": 0, "dynamic_idle_timeout": -1
	}`)
	if err != nil {
		t.Fatal(err)
	}
	values, err := template.values(requestFor("ALICE.Example.com:80", "/alice_app/x"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := template.resolve(values)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "sites/alice/app")
	want := []any{
		"alice_app:app", 1, dir, python, []string{"A=1", "B=alice.example.com", `C={"a": {}}`},
		[]confined{
			{filepath.Join(root, "sites"), dir}, {filepath.Join(root, "venvs"), filepath.Join(root, "venvs/alice")},
			{dir, filepath.Join(dir, "alice_app.py")},
		}, 0, 0,
	}
	have := []any{got.App, got.Workers, got.WorkingDir, got.Python, got.Env, got.Confined, template.maxApps, int(template.idleTimeout)}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("got  %q\nwant %q", have, want)
	}
}

func TestWorkersOfDynamicApps(t *testing.T) {
	root := tenants(t, "alice")
	for settings, want := range map[string][2]int{"": {1, 0}, `"workers": 3,`: {3, 0}, `"max_workers": 2,`: {0, 2}} {
		template, err := dynamicTemplate(`{` + settings + `"module_wsgi": "main:app", "working_dir": "` + root + `/{http.request.host.labels.2}"}`)
		if err != nil {
			t.Fatal(err)
		}
		s, err := template.resolve([]string{"alice"})
		if got := [2]int{s.Workers, s.MaxWorkers}; err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", settings, got, err, want)
		}
	}
}

func TestWrongDynamicSettings(t *testing.T) {
	root := tenants(t, "sites")
	const host = "{http.request.host.labels.2}"
	tests := []struct{ name, json, want string }{
		{"threads", `{"module_wsgi": "` + host + `:app", "workers_runtime": "thread"}`,
			"workers_runtime: dynamic apps need processes: all threads share one interpreter, with one module of each name and one environment, " +
				"and it forgets no app; use process"},
		{"a variable that the request chooses", `{"module_wsgi": "main:` + host + `"}`,
			`module_wsgi: "main:` + host + `": a request may choose the module, not what is behind the colon; write for example ` + host + `:app`},
		{"no app", `{"module_wsgi": "` + host + `"}`,
			`module_wsgi: "` + host + `" is not module:variable; write for example main:app, mysite.wsgi:application or main:make_app()`},
		{"dots behind a placeholder", `{"module_wsgi": "main:app", "working_dir": "/srv/` + host + `/../x"}`,
			`working_dir: "/srv/` + host + `/../x": no .. may follow a placeholder; write the folder without it`},
		{"no such root", `{"module_wsgi": "main:app", "working_dir": "` + root + `/none/` + host + `"}`,
			`working_dir: "` + root + `/none/` + host + `": "` + root + `/none/": no such file or directory; make the folder, or correct its name`},
		{"no such root of venvs", `{"module_wsgi": "main:app", "venv_path": "` + root + `/none/x` + host + `"}`,
			`venv: "` + root + `/none/x` + host + `": "` + root + `/none/": no such file or directory; make the folder, or correct its name`},
		{"no such root of env files", `{"module_wsgi": "main:app", "env_files": ["` + root + `/none/` + host + `"]}`,
			`env_file: "` + root + `/none/` + host + `": "` + root + `/none/": no such file or directory; make the folder, or correct its name`},
		{"no such working_dir", `{"module_wsgi": "` + host + `:app", "working_dir": "` + root + `/none"}`,
			`working_dir: "` + root + `/none": no such file or directory; give the folder that the app is in`},
		{"no such venv", `{"module_wsgi": "` + host + `:app", "venv_path": "` + root + `/none"}`,
			`venv: "` + root + `/none": no such file or directory; create it with python3 -m venv ` + root + `/none`},
		{"no such python_path", `{"module_wsgi": "main:app", "working_dir": "` + root + `/sites/` + host + `", "python_path": "python9"}`,
			`python_path: "python9": executable file not found in $PATH; give the path of a Python interpreter, or the name of one on PATH`},
		{"no such env file", `{"module_wsgi": "` + host + `:app", "env_files": ["` + root + `/none"]}`,
			`env_file: "` + root + `/none": no such file or directory; give the path of a file of NAME=VALUE lines`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := dynamicTemplate(test.json)
			want := test.want
			if test.name == "threads" && noThreads != "" {
				want = "workers_runtime: " + noThreads
			}
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if _, ok := errors.AsType[*settingError](err); !ok {
				t.Errorf("%T does not name the setting", err)
			}
		})
	}
}

// A working_dir that no request has a part in is followed to where it leads whenever an app is looked up.
func TestAWorkingDirThatIsALinkIsFollowed(t *testing.T) {
	root := tenants(t, "one", "two")
	for _, config := range []string{
		`"module_wsgi": "main:app", "env_vars": {"TENANT": "{http.request.host.labels.2}"}`,
		`"module_wsgi": "{http.request.host.labels.2}:app"`,
		`"module_wsgi": "main:app", "env_files": ["{http.request.host.labels.2}.env"]`,
	} {
		link(t, "one", root+"/current")
		for _, release := range []string{"one", "two"} {
			writeFile(t, root, release+"/alice.py", "")
			writeFile(t, root, release+"/alice.env", "")
		}
		template, err := dynamicTemplate(`{` + config + `, "working_dir": "` + root + `/current"}`)
		if err != nil {
			t.Fatal(err)
		}
		for _, release := range []string{"one", "two"} {
			s, err := template.resolve([]string{"alice"})
			if err != nil || s.WorkingDir != root+"/"+release {
				t.Errorf("%s: got %q, %v, want %s", config, s.WorkingDir, err, release)
			}
			for _, chosen := range s.Confined {
				if chosen.Root != s.WorkingDir {
					t.Errorf("%s: %q is confined to %q", config, chosen.Path, chosen.Root)
				}
			}
			if err := os.Remove(root + "/current"); err != nil {
				t.Fatal(err)
			}
			if _, err := template.resolve([]string{"alice"}); err == nil || template.isGone([]string{"alice"}) {
				t.Errorf("%s: without the link, got %v, and apps that have gone", config, err)
			}
			link(t, "two", root+"/current")
		}
		if err := os.Remove(root + "/current"); err != nil {
			t.Fatal(err)
		}
	}
}

// An environment in Caddy's current directory would be everybody's, so nobody is told to make one there.
func TestAVirtualEnvironmentThatIsMissingIsMissingInTheAppsFolder(t *testing.T) {
	root := tenants(t, "alice")
	t.Chdir(testFolder(t))
	template, err := dynamicTemplate(`{"module_wsgi": "main:app", "working_dir": "` + root + `/{http.request.host.labels.2}", "venv_path": ".venv"}`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = template.resolve([]string{"alice"})
	venv := root + "/alice/.venv"
	want := fmt.Sprintf("venv: %q: no such file or directory; create it with python3 -m venv %s", venv, venv)
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Templates are the same exactly if their apps are.
func TestTemplateKeys(t *testing.T) {
	root := tenants(t, "sites", "more")
	configs := []string{
		`{"module_wsgi": "main:app", "working_dir": "ROOT/sites/{http.request.host.labels.2}"}`,
		`{"module_wsgi": "main:app", "working_dir": "ROOT/sites/{http.request.host.labels.1}"}`,
		`{"module_wsgi": "main:app", "working_dir": "ROOT/more/{http.request.host.labels.2}"}`,
		`{"module_wsgi": "main:app", "working_dir": "ROOT/sites/{http.request.host.labels.2}", "max_dynamic_apps": 1}`,
		`{"module_wsgi": "main:app", "working_dir": "ROOT/sites/{http.request.host.labels.2}", "max_dynamic_apps": 2}`,
		`{"module_wsgi": "main:app", "working_dir": "ROOT/sites/{http.request.host.labels.2}", "env_vars": {"A": "{http.request.host}"}}`,
		`{"module_wsgi": "main:app", "working_dir": "ROOT/sites/{http.request.host.labels.2}", "env_vars": {"A": "{http.request.host}b"}}`,
	}
	keys := map[string]string{}
	for _, config := range configs {
		var first string
		for _, extra := range []string{"", `, "root_path": "/x"`} {
			text := strings.Replace(strings.TrimSuffix(config, "}")+extra+"}", "ROOT", root, 1)
			template, err := dynamicTemplate(text)
			if err != nil {
				t.Fatal(err)
			}
			if extra == "" {
				first = template.key()
			} else if template.key() != first {
				t.Errorf("what makes no other app gives %s another key", config)
			}
		}
		if other, taken := keys[first]; taken {
			t.Errorf("%s has the key of %s", config, other)
		}
		keys[first] = config
	}
}

// 100,000 hosts, most of them hostile, lead to the folders that are there for them or nowhere.
func TestThreat22NoHostLeadsOut(t *testing.T) {
	root := tenants(t, "sites/alice", "sites/bob", "outside")
	link(t, root+"/outside", root+"/sites/out")
	link(t, "../outside", root+"/sites/up")
	link(t, "/", root+"/sites/root")
	link(t, ".", root+"/sites/self")
	link(t, "loop", root+"/sites/loop")
	link(t, "bob", root+"/sites/inside")
	writeFile(t, root, "sites/file", "")
	template, err := dynamicTemplate(`{"module_wsgi": "main:app",
		"working_dir": "` + root + `/sites/{http.request.host.labels.2}/", "env_vars": {"A": "{http.request.uri.path.0}"}}`)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{"alice": "alice", "bob": "bob", "inside": "bob"}
	pieces := []string{
		"alice", "bob", "inside", "out", "up", "root", "self", "loop", "file", "outside", "sites", "..", ".", "/", "\\", "%2e", "%2f",
		"\x00", "\n", "~", "$HOME", "{env.HOME}", "-", "_", "A", "é", "․․", "／", "\xff", " ", ":", "*", "",
	}
	random := rand.New(rand.NewPCG(22, 1))
	for range 100_000 {
		var host, path string
		for range 1 + random.IntN(3) {
			host += pieces[random.IntN(len(pieces))]
			path += pieces[random.IntN(len(pieces))]
		}
		values, err := template.values(requestFor(host+".example.com", "/"+path))
		var c Config
		if err == nil {
			c, _, err = template.locate(values)
		}
		if err != nil {
			if _, ok := errors.AsType[*noApp](err); !ok {
				t.Fatalf("%q: %v", host, err)
			}
			continue
		}
		label := strings.ToLower(host[strings.LastIndexByte(host, '.')+1:])
		if want := fmt.Sprintf("%s/sites/%s", root, good[label]); good[label] == "" || c.WorkingDir != want {
			t.Fatalf("%q leads to %q", host, c.WorkingDir)
		}
		if value := c.EnvVars["A"]; !isLabel(value) {
			t.Fatalf("%q becomes a variable", value)
		}
	}
}
