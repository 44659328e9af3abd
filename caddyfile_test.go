package caddysnake

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var updateGoldens = flag.Bool("update", false, "rewrite the JSON in tests/caddyfile with what the adapter gives")

// adapt returns the JSON, indented with tabs, of a Caddyfile.
func adapt(t *testing.T, text string) (string, error) {
	t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return indented.String(), nil
}

// Each file in tests/caddyfile holds a Caddyfile, a line of dashes, and the JSON that it becomes.
func TestCaddyfileGoldens(t *testing.T) {
	const separator = "----------\n"
	files, err := filepath.Glob("tests/caddyfile/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, want, ok := strings.Cut(string(golden), separator)
			if !ok {
				t.Fatalf("no line %q", separator)
			}
			got, err := adapt(t, text)
			if err != nil {
				t.Fatal(err)
			}
			if *updateGoldens {
				if err := os.WriteFile(file, []byte(text+separator+got+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != strings.TrimSpace(want) {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

func TestBarePathMatchesThePathAndWhatIsBelow(t *testing.T) {
	tests := []struct {
		matcher   string
		match, no []string
	}{
		{"/api", []string{"/api", "/api/", "/api/x/y"}, []string{"/apix", "/", "/x/api"}},
		{"/api/", []string{"/api/", "/api/x"}, []string{"/api", "/apix"}},
		{"/", []string{"/", "/x", "/x/y"}, nil},
		{"/api*", []string{"/api", "/apix"}, []string{"/"}},
	}
	for _, test := range tests {
		adapted, err := adapt(t, ":80 {\n python "+test.matcher+" main:app\n}")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range test.match {
			if !matches(t, adapted, path) {
				t.Errorf("python %s does not match %s", test.matcher, path)
			}
		}
		for _, path := range test.no {
			if matches(t, adapted, path) {
				t.Errorf("python %s matches %s", test.matcher, path)
			}
		}
	}
}

// matches reports whether a route of the adapted configuration's first server matches path.
func matches(t *testing.T, adapted, path string) bool {
	t.Helper()
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Match []struct{ Path caddyhttp.MatchPath }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(adapted), &config); err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest("GET", path, nil)
	request = request.WithContext(context.WithValue(request.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
	for _, route := range config.Apps.HTTP.Servers["srv0"].Routes {
		for _, set := range route.Match {
			if err := set.Path.Provision(caddy.Context{}); err != nil {
				t.Fatal(err)
			}
			if matched, err := set.Path.MatchWithError(request); err != nil {
				t.Fatal(err)
			} else if matched {
				return true
			}
		}
	}
	return false
}

// What is wrong in a Caddyfile is told with its line, before anything is started or looked up.
func TestCaddyfileErrors(t *testing.T) {
	const known = "autoreload, drain_timeout, dynamic_idle_timeout, env_file, env_var, idle_timeout, lifespan, max_age, max_dynamic_apps, max_memory, max_requests, module_asgi, module_esgi, module_wsgi, python_path, queue, request_timeout, root_path, runtime, start_timeout, " +
		"threads, venv, websocket, workers, workers_runtime, working_dir"
	const appForms = " is not module:variable; write for example main:app, mysite.wsgi:application or main:make_app(), at Caddyfile:"
	tests := []struct{ name, directive, want string }{
		{"nothing", "python", "no app to run; give module_wsgi module:variable, or module_asgi or module_esgi, at Caddyfile:2"},
		{"empty block", "python {\n}", "no app to run; give module_wsgi module:variable, or module_asgi or module_esgi, at Caddyfile:2"},
		{"not an app", "python main", `module_wsgi: "main"` + appForms + "2"},
		{"a path that is no matcher", "python api/*", `module_wsgi: "api/*"` + appForms + "2"},
		{"two apps in a line", "python main:app other:app",
			`["main:app" "other:app"] are too many arguments; write python module:variable, or a block, at Caddyfile:2`},
		{"app and block", "python main:app {\nworkers 2\n}",
			`"main:app" and a block do not go together; write module_wsgi main:app in the block, at Caddyfile:3`},
		{"unknown matcher", "python @api main:app", "unrecognized matcher name: @api, at Caddyfile:2"},
		{"unknown subdirective", "python {\nmodule_wsgi main:app\nworker 2\n}",
			`"worker" is not a setting of python; known are ` + known + ", at Caddyfile:4"},
		{"both modules", "python {\nmodule_asgi a:b\nmodule_wsgi a:b\n}",
			"module_asgi: module_wsgi is given too; one python handler runs one app, keep the one that fits it, at Caddyfile:3"},
		{"module_wsgi twice", "python {\nmodule_wsgi a:b\nmodule_wsgi c:d\n}", "module_wsgi is given twice, first in line 3; keep one, at Caddyfile:4"},
		{"module without variable", "python {\nworkers 1\nmodule_asgi main:\n}", `module_asgi: "main:"` + appForms + "4"},
		{"module with arguments", "python {\nmodule_asgi \"main:make(1)\"\n}", `module_asgi: "main:make(1)"` + appForms + "3"},
		{"module that is a path", "python {\nmodule_wsgi ./main:app\n}", `module_wsgi: "./main:app"` + appForms + "3"},
		{"no argument", "python {\nmodule_wsgi\n}", "module_wsgi has 0 arguments; write module_wsgi MODULE:VARIABLE, at Caddyfile:3"},
		{"too many arguments", "python {\nmodule_wsgi main app\n}",
			"module_wsgi has 2 arguments; write module_wsgi MODULE:VARIABLE, at Caddyfile:3"},
		{"empty argument", "python {\nmodule_wsgi main:app\nworking_dir \"\"\n}",
			"working_dir is empty; write working_dir PATH, or remove it, at Caddyfile:4"},
		{"no workers", "python {\nmodule_wsgi a:b\nworkers 0\n}", `workers: "0" is not possible; give a whole number of 1 or more, at Caddyfile:4`},
		{"no workers at all", "python {\nmodule_wsgi a:b\nworkers 0 0\n}", `workers: "0" is not possible; give a whole number of 1 or more, at Caddyfile:4`},
		{"more at least than at most", "python {\nmodule_wsgi a:b\nworkers 3 2\n}",
			"workers: at least 3 and at most 2 is not possible; give the smaller number first, at Caddyfile:4"},
		{"idle_timeout of a fixed number", "python {\nmodule_wsgi a:b\nidle_timeout 1m\n}",
			"idle_timeout: the number of workers does not change; give it as workers MIN MAX, or remove this, at Caddyfile:4"},
		{"no idle_timeout", "python {\nmodule_wsgi a:b\nworkers 1 2\nidle_timeout 0\n}",
			`idle_timeout: "0" is not possible; give a duration such as 5m, at Caddyfile:5`},
		{"half a worker", "python {\nmodule_wsgi a:b\nworkers 0.5\n}", `workers: "0.5" is not possible; give a whole number of 1 or more, at Caddyfile:4`},
		{"negative threads", "python {\nmodule_wsgi a:b\nthreads -1\n}", `threads: "-1" is not possible; give a whole number of 1 or more, at Caddyfile:4`},
		{"threads under ASGI", "python {\nthreads 4\nmodule_asgi a:b\n}",
			"threads: an ASGI app runs in one event loop per worker, not in threads; remove it, and raise workers instead, at Caddyfile:3"},
		{"gevent in a thread", "python {\nmodule_wsgi a:b\nruntime gevent\nworkers_runtime thread\n}",
			threadError("gevent and ESGI patch a whole process, which with thread would be Caddy's; use process") + ", at Caddyfile:5"},
		{"unknown workers_runtime", "python {\nmodule_wsgi a:b\nworkers_runtime fork\n}",
			`workers_runtime: "fork" is unknown; use process or thread (default: process), at Caddyfile:4`},
		{"threads under gevent", "python {\nmodule_wsgi a:b\nruntime gevent\nthreads 2\n}",
			"threads: gevent runs each request in a greenlet, not in a thread; remove it, or use runtime sync, at Caddyfile:5"},
		{"uvloop under WSGI", "python {\nmodule_wsgi a:b\nruntime uvloop\n}",
			`runtime: "uvloop" does not run WSGI apps; use sync or gevent, or leave it out, at Caddyfile:4`},
		{"sync under ASGI", "python {\nmodule_asgi a:b\nruntime sync\n}",
			`runtime: "sync" does not run ASGI apps; use native or uvloop, or leave it out, at Caddyfile:4`},
		{"unknown lifespan", "python {\nmodule_asgi a:b\nlifespan maybe\n}", `lifespan: "maybe" is unknown; use on, off or auto, at Caddyfile:4`},
		{"lifespan under WSGI", "python {\nmodule_wsgi a:b\nlifespan on\n}",
			"lifespan: WSGI apps have no lifespan protocol; remove it, at Caddyfile:4"},
		{"no start_timeout", "python {\nmodule_wsgi a:b\nstart_timeout 0\n}",
			`start_timeout: "0" is not possible; give a duration such as 120s or 5m, or forever, at Caddyfile:4`},
		{"negative start_timeout", "python {\nmodule_wsgi a:b\nstart_timeout -2s\n}",
			`start_timeout: "-2s" is not possible; give a duration such as 120s or 5m, or forever, at Caddyfile:4`},
		{"start_timeout without unit", "python {\nmodule_wsgi a:b\nstart_timeout 60\n}",
			`start_timeout: "60" is not possible; give a duration such as 120s or 5m, or forever, at Caddyfile:4`},
		{"no request_timeout", "python {\nmodule_wsgi a:b\nrequest_timeout off\n}",
			`request_timeout: "off" is not possible; give a duration such as 120s or 5m, or forever, at Caddyfile:4`},
		{"no queue", "python {\nmodule_wsgi a:b\nqueue {\nsize 0\n}\n}",
			`queue size: "0" is not possible; give a whole number of 1 or more, at Caddyfile:5`},
		{"queue timeout without unit", "python {\nmodule_wsgi a:b\nqueue {\ntimeout 5\n}\n}",
			`queue timeout: "5" is not possible; give a duration such as 120s or 5m, or forever, at Caddyfile:5`},
		{"unknown queue setting", "python {\nmodule_wsgi a:b\nqueue {\nlength 5\n}\n}",
			`"length" is not a setting of python queue; known are size, timeout, at Caddyfile:5`},
		{"relative root_path", "python {\nmodule_wsgi a:b\nroot_path api/\n}",
			`root_path: "api" does not begin with a slash; write "/api", or auto, at Caddyfile:4`},
		{"env_var without value", "python {\nmodule_wsgi a:b\nenv_var A\n}", "env_var has 1 arguments; write env_var NAME VALUE, at Caddyfile:4"},
		{"env_var twice", "python {\nmodule_wsgi a:b\nenv_var A 1\nenv_var A 2\n}", "env_var: A is given twice; keep one, at Caddyfile:5"},
		{"refused env_var", "python {\nmodule_wsgi a:b\nenv_var LD_PRELOAD x\nenv_var B 2\n}",
			"env_var: LD_PRELOAD is refused, as is every name that begins with CADDYSNAKE_, LD_ or DYLD_; remove it, or set it for Caddy itself, at Caddyfile:4"},
		{"websocket under WSGI", "python {\nmodule_wsgi a:b\nwebsocket {\n}\n}",
			"websocket: a WSGI app takes no WebSockets; remove it, at Caddyfile:4"},
		{"websocket with an argument", "python {\nmodule_asgi a:b\nwebsocket on\n}",
			"websocket has 1 arguments; write websocket { ... }, at Caddyfile:4"},
		{"unknown websocket setting", "python {\nmodule_asgi a:b\nwebsocket {\nping 1s\n}\n}",
			`"ping" is not a setting of python websocket; known are compression, max_size, ping_interval, ping_timeout, at Caddyfile:5`},
		{"websocket setting twice", "python {\nmodule_asgi a:b\nwebsocket {\ncompression on\ncompression on\n}\n}",
			"websocket compression is given twice, first in line 5; keep one, at Caddyfile:6"},
		{"no ping_interval", "python {\nmodule_asgi a:b\nwebsocket {\nping_interval 0\n}\n}",
			`websocket ping_interval: "0" is not possible; give a duration such as 20s, or off, at Caddyfile:5`},
		{"ping_timeout without unit", "python {\nmodule_asgi a:b\nwebsocket {\nping_timeout 20\n}\n}",
			`websocket ping_timeout: "20" is not possible; give a duration such as 20s, or off, at Caddyfile:5`},
		{"no max_size", "python {\nmodule_asgi a:b\nwebsocket {\nmax_size\n}\n}",
			"websocket max_size has 0 arguments; write websocket max_size SIZE, at Caddyfile:5"},
		{"unknown max_size", "python {\nmodule_asgi a:b\nwebsocket {\nmax_size large\n}\n}",
			`websocket max_size: "large" is not possible; give a size such as 64KiB or 16MiB, at Caddyfile:5`},
		{"unknown compression", "python {\nmodule_asgi a:b\nwebsocket {\nping_interval off\ncompression gzip\n}\n}",
			`websocket compression: "gzip" is unknown; use on or off, at Caddyfile:6`},
		{"max_requests without a number", "python {\nmodule_wsgi a:b\nmax_requests\n}",
			"max_requests has 0 arguments; write max_requests N [JITTER], at Caddyfile:4"},
		{"max_requests with three numbers", "python {\nmodule_wsgi a:b\nmax_requests 1 2 3\n}",
			"max_requests has 3 arguments; write max_requests N [JITTER], at Caddyfile:4"},
		{"no max_requests", "python {\nmodule_wsgi a:b\nmax_requests 0\n}",
			`max_requests: "0" is not possible; give a whole number of 1 or more, at Caddyfile:4`},
		{"a jitter in per cent", "python {\nmodule_wsgi a:b\nmax_requests 1000 10%\n}",
			`max_requests: "10%" is not possible; give a whole number of 1 or more, at Caddyfile:4`},
		{"unknown max_memory", "python {\nmodule_wsgi a:b\nmax_memory half\n}",
			`max_memory: "half" is not possible; give a size such as 512MiB, at Caddyfile:4`},
		{"max_age without unit", "python {\nmodule_wsgi a:b\nmax_age 3600\n}",
			`max_age: "3600" is not possible; give a duration such as 12h, at Caddyfile:4`},
		{"unknown autoreload", "python {\nmodule_wsgi a:b\nautoreload always\n}",
			`autoreload: "always" is unknown; use on, browser or off, at Caddyfile:4`},
		{"autoreload with two words", "python {\nmodule_wsgi a:b\nautoreload on off\n}",
			"autoreload has 2 arguments; write autoreload [on|browser|off], at Caddyfile:4"},
		{"negative max_dynamic_apps", "python {\nmodule_wsgi {http.request.host}:b\nmax_dynamic_apps -1\n}",
			`max_dynamic_apps: "-1" is not possible; give a number of apps, or 0 for no limit, at Caddyfile:4`},
		{"max_dynamic_apps of an app that is not dynamic", "python {\nmodule_wsgi a:b\nmax_dynamic_apps 1\n}",
			"max_dynamic_apps: " + notDynamic + ", at Caddyfile:4"},
		{"no dynamic_idle_timeout", "python {\nmodule_wsgi {http.request.host}:b\ndynamic_idle_timeout 0\n}",
			`dynamic_idle_timeout: "0" is not possible; give a duration such as 120s or 5m, or forever, at Caddyfile:4`},
		{"env_var that is no name", "python {\nmodule_wsgi a:b\nenv_var A=1 2\n}",
			`env_var: "A=1" is not the name of a variable; use letters, digits and _, with no digit first, at Caddyfile:4`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := adapt(t, ":80 {\n"+test.directive+"\n}\n")
			want := "parsing caddyfile tokens for 'python': " + test.want
			if err == nil || err.Error() != want {
				t.Errorf("got  %v%s\nwant %s", err, got, want)
			}
		})
	}
}

// Placeholders may stand where the value can be checked only when the configuration is loaded.
func TestCaddyfileAcceptsPlaceholders(t *testing.T) {
	for _, setting := range []string{
		"module_wsgi {env.MODULE}:app", "module_wsgi {env.APP}", "module_wsgi a:b\nroot_path {env.ROOT}",
		"module_wsgi a:b\nworking_dir {env.DIR}", `module_wsgi a:b` + "\n" + `env_var CONFIG {"a":1}`,
	} {
		if _, err := adapt(t, ":80 {\npython {\n"+setting+"\n}\n}\n"); err != nil {
			t.Error(err)
		}
	}
}

// A block that is accepted is a valid configuration, and its JSON is the same configuration.
func FuzzCaddyfile(f *testing.F) {
	for _, seed := range []string{
		"python main:app", "python {\nmodule_asgi a:b\nworkers 2\nenv_var A \"\"\n}", "python {\nmodule_wsgi a:b {\n}\n}",
		"python {\nmodule_wsgi a:b\nstart_timeout 1d\nroot_path /\nenv_file {env.X}\n}", "python a b {", "python {\n}\n}",
		"python {\nmodule_asgi a:b\nwebsocket {\nping_interval off\nmax_size 1MiB\ncompression on\n}\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		var c, again Config
		if c.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
			return
		}
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &again); err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		if utf8.ValidString(text) && !reflect.DeepEqual(c, again) {
			t.Fatalf("%+v became %+v", c, again)
		}
	})
}
