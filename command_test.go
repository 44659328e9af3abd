package caddysnake

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// serverConfig returns the JSON that flags stand for, after Caddy has found it valid.
func serverConfig(t *testing.T, args ...string) (any, error) {
	t.Helper()
	var s server
	cmd := new(cobra.Command)
	s.addFlags(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return nil, cmd.FlagErrorFunc()(cmd, err)
	}
	config, err := s.config(cmd.Flags().Changed)
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(config); err != nil {
		t.Fatal(err)
	}
	var decoded any
	if err := json.Unmarshal(encoded, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded, nil
}

// at returns what stands at a path such as "apps.http.servers" in decoded JSON.
func at(value any, path string) any {
	for _, key := range strings.Split(path, ".") {
		switch node := value.(type) {
		case map[string]any:
			value = node[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(node) {
				return nil
			}
			value = node[i]
		default:
			return nil
		}
	}
	return value
}

// serverFolder is a current directory with all that flags may name.
func serverFolder(t *testing.T) string {
	dir := testFolder(t)
	t.Chdir(dir)
	t.Setenv("PATH", dir)
	fakePython(t, dir, "python3")
	fakePython(t, dir, "python3.12")
	for _, folder := range []string{"app", "files", "venv/bin"} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "venv"), "pyvenv.cfg", "")
	link(t, filepath.Join(dir, "python3"), "venv/bin/python")
	return dir
}

func TestServerFlags(t *testing.T) {
	serverFolder(t)
	t.Setenv("LISTEN", "localhost:9080")
	const httpServer = "apps.http.servers.python"
	const handler = httpServer + ".routes.0.handle.0"
	tests := []struct {
		args []string
		path string
		want string // JSON
	}{
		{nil, "admin", `{"disabled": true, "config": {"persist": false}}`},
		{nil, httpServer, `{"listen": [":9080"], "routes": [{"handle": [
			{"handler": "python", "module_wsgi": "main:app", "start_timeout": 120000000000, "drain_timeout": 30000000000}]}]}`},
		{nil, "logging", `null`},
		{[]string{"--admin", "off"}, "admin", `{"disabled": true, "config": {"persist": false}}`},
		{[]string{"--admin", ""}, "admin", `{"disabled": true, "config": {"persist": false}}`},
		{[]string{"--listen", "{env.LISTEN}"}, httpServer + ".listen", `["{env.LISTEN}"]`},
		{[]string{"--working-dir", "{http.request.host.labels.2}"}, handler + ".working_dir", `"{http.request.host.labels.2}"`},
		{[]string{"--server-type", "asgi"}, handler + ".module_asgi", `"main:app"`},
		{[]string{"--server-type", "asgi"}, handler + ".module_wsgi", `null`},
		{[]string{"-t", "asgi", "-a", "x:y", "-l", ":80", "-w", "1"}, httpServer, `{"listen": [":80"], "routes": [{"handle": [
			{"handler": "python", "module_asgi": "x:y", "workers": 1, "start_timeout": 120000000000, "drain_timeout": 30000000000}]}]}`},
		{[]string{"--app", "a.b:c()"}, handler + ".module_wsgi", `"a.b:c()"`},
		{[]string{"--domain", "example.com"}, httpServer, `{"listen": [":443"], "routes": [
			{"match": [{"host": ["example.com"]}], "handle": [{"handler": "subroute", "routes": [
				{"handle": [{"handler": "python", "module_wsgi": "main:app", "start_timeout": 120000000000, "drain_timeout": 30000000000}]}]}]}]}`},
		{[]string{"--domain", "example.com", "--listen", ":8443"}, httpServer + ".listen", `[":8443"]`},
		{[]string{"--domain", "example.com", "--listen", ":9080"}, httpServer + ".listen", `[":9080"]`},
		{[]string{"--listen", "[::1]:80"}, httpServer + ".listen", `["[::1]:80"]`},
		{[]string{"--listen", "tcp/localhost:80-82"}, httpServer + ".listen", `["tcp/localhost:80-82"]`},
		{[]string{"--listen", "unix//run/app.sock"}, httpServer + ".listen", `["unix//run/app.sock"]`},
		{[]string{"--workers", "3"}, handler + ".workers", `3`},
		{[]string{"--threads", "16"}, handler + ".threads", `16`},
		{[]string{"--python-path", "python3.12"}, handler + ".python_path", `"python3.12"`},
		{[]string{"--working-dir", "app"}, handler + ".working_dir", `"app"`},
		{[]string{"--venv", "venv"}, handler + ".venv_path", `"venv"`},
		{[]string{"--static-path", "files"}, httpServer + ".routes.0", `{"match": [{"path": ["/static/*"]}], "handle": [
			{"handler": "encode", "encodings": {"gzip": {}, "zstd": {}}, "prefer": ["zstd", "gzip"]},
			{"handler": "rewrite", "strip_path_prefix": "/static"}, {"handler": "file_server", "root": "files"}]}`},
		{[]string{"--static-path", "files"}, httpServer + ".routes.1.handle.0.module_wsgi", `"main:app"`},
		{[]string{"--static-path", "files", "--static-route", "/assets/css/"}, httpServer + ".routes.0.match", `[{"path": ["/assets/css/*"]}]`},
		{[]string{"--static-path", "files", "--static-route", "/assets/css/"}, httpServer + ".routes.0.handle.1.strip_path_prefix", `"/assets/css"`},
		{[]string{"--debug"}, "logging", `{"logs": {"default": {"level": "DEBUG"}}}`},
		{[]string{"--access-logs"}, httpServer + ".logs", `{}`},
		{[]string{"--server-type", "asgi", "--lifespan", "on"}, handler + ".lifespan", `"on"`},
		{[]string{"--server-type", "asgi", "--lifespan", "auto"}, handler + ".lifespan", `"auto"`},
		{[]string{"--server-type", "asgi", "--runtime", "native"}, handler + ".runtime", `"native"`},
		{[]string{"--start-timeout", "5m"}, handler + ".start_timeout", `300000000000`},
		{[]string{"--start-timeout", "forever"}, handler + ".start_timeout", `-1`},
		{[]string{"--drain-timeout", "5s"}, handler + ".drain_timeout", `5000000000`},
		{[]string{"--max-requests", "1000"}, handler + ".max_requests", `1000`},
		{[]string{"--max-requests", "1000", "--max-requests-jitter", "50"}, handler + ".max_requests_jitter", `50`},
		{[]string{"--max-memory", "512MiB"}, handler + ".max_memory", `536870912`},
		{[]string{"--max-age", "12h"}, handler + ".max_age", `43200000000000`},
		{[]string{"--autoreload"}, handler + ".autoreload", `"on"`},
		{[]string{"--autoreload=browser"}, handler + ".autoreload", `"browser"`},
		{[]string{"--autoreload=off"}, handler + ".autoreload", `"off"`},
		{[]string{"--workers", "1", "--max-workers", "4"}, handler + ".max_workers", `4`},
		{[]string{"--max-workers", "4", "--idle-timeout", "1m"}, handler + ".idle_timeout", `60000000000`},
		{[]string{"--request-timeout", "10s"}, handler + ".request_timeout", `10000000000`},
		{[]string{"--start-timeout", "-1"}, handler + ".start_timeout", `-1`},
		{[]string{"--admin", "localhost:2020"}, "admin", `{"listen": "localhost:2020", "config": {"persist": false}}`},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.args, " ", test.path), func(t *testing.T) {
			config, err := serverConfig(t, append([]string{"--server-type", "wsgi", "--app", "main:app"}, test.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			var want any
			if err := json.Unmarshal([]byte(test.want), &want); err != nil {
				t.Fatal(err)
			}
			if got := at(config, test.path); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// Flags and subdirectives fill the same struct, so the handler's JSON is the same.
func TestServerMakesTheConfigOfTheDirective(t *testing.T) {
	dir := serverFolder(t)
	config, err := serverConfig(t, "--server-type", "asgi", "--app", "main:app", "--workers", "2", "--runtime", "native", "--lifespan", "on",
		"--working-dir", dir, "--venv", "venv", "--python-path", "python3.12", "--start-timeout", "30s", "--drain-timeout", "forever")
	if err != nil {
		t.Fatal(err)
	}
	adapted, err := adapt(t, ":9080 {\npython {\nmodule_asgi main:app\nworkers 2\nruntime native\nlifespan on\nworking_dir "+dir+
		"\nvenv venv\npython_path python3.12\nstart_timeout 30s\ndrain_timeout forever\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	var directive any
	if err := json.Unmarshal([]byte(adapted), &directive); err != nil {
		t.Fatal(err)
	}
	got, want := at(config, "apps.http.servers.python.routes"), at(directive, "apps.http.servers.srv0.routes")
	if got == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestServerFlagErrors(t *testing.T) {
	dir := serverFolder(t)
	writeFile(t, ".", "file", "")
	threads := "--workers: a thread costs next to nothing while it is idle, so their number does not change; " +
		"leave --max-workers out, or use --workers-runtime process"
	if noThreads != "" {
		threads = "--workers-runtime: " + noThreads
	}
	const required = "--server-type and --app are required, as in caddy python-server --server-type wsgi --app main:app"
	app := []string{"--server-type", "wsgi", "--app", "main:app"}
	tests := []struct {
		args []string
		want string
	}{
		{nil, required},
		{[]string{"--app", "main:app"}, required},
		{[]string{"--server-type", "wsgi"}, required},
		{[]string{"--server-type", "cgi", "--app", "main:app"}, `--server-type: "cgi" is unknown; use wsgi, asgi or esgi`},
		{[]string{"--server-type", "asgi", "--app", "main"},
			`--app: "main" is not module:variable; write for example main:app, mysite.wsgi:application or main:make_app()`},
		{append(app, "--listen", "9080"), `--listen: "9080" has no port; write for example :9080`},
		{append(app, "--listen", "[::1]"), `--listen: "[::1]" has no port; write for example :9080`},
		{append(app, "--listen", "::1"), `--listen: "::1" has no port; write for example :9080`},
		{append(app, "--listen", "tcp/localhost"), `--listen: "tcp/localhost" has no port; write for example :9080`},
		{append(app, "--listen", ":http"), `--listen: ":http" is not an address; write for example :9080`},
		{append(app, "--listen", ":99999"), `--listen: ":99999" is not an address; write for example :9080`},
		{append(app, "--listen", "{env.NONE}"),
			`--listen: "{env.NONE}": evaluated placeholder {env.NONE} is empty; write for example :9080`},
		{append(app, "--domain", ""), "--domain: it is empty; write for example example.com"},
		{append(app, "--workers", "-1"), "--workers: -1 is not possible; give 1 or more, or leave it out for one per CPU"},
		{append(app, "--workers", "two"), `--workers: "two" is not possible; give a whole number of 1 or more`},
		{append(app, "--workers", "0"), "--workers: 0 is not possible; give 1 or more, or --max-workers too"},
		{append(app, "--threads", "0"), "--threads: 0 is not possible; give 1 or more, or leave it out for 8"},
		{append(app, "--threads", "-1"), "--threads: -1 is not possible; give 1 or more, or leave it out for 8"},
		{append(app, "--python-path", "none"),
			`--python-path: "none": executable file not found in $PATH; give the path of a Python interpreter, or the name of one on PATH`},
		{append(app, "--working-dir", "none"), `--working-dir: "none": no such file or directory; give the folder that the app is in`},
		{append(app, "--venv", "app"), `--venv: "app" is not a virtual environment, it has no pyvenv.cfg; create one with python3 -m venv, or give --python-path`},
		{append(app, "--static-path", "none"), `--static-path: "none": no such file or directory; give a folder`},
		{append(app, "--static-path", "file"), `--static-path: "file" is a file; give a folder`},
		{append(app, "--static-route", "/"), `--static-route: "/" is not a path below /; write for example /static`},
		{append(app, "--static-route", "static"), `--static-route: "static" is not a path below /; write for example /static`},
		{append(app, "--lifespan", "on"), "--lifespan: WSGI apps have no lifespan protocol; remove it"},
		{append(app, "--runtime", "gevent", "--threads", "2"),
			"--threads: gevent runs each request in a greenlet, not in a thread; remove it, or use --runtime sync"},
		{append(app, "--start-timeout", "soon"), `--start-timeout: "soon" is not possible; give a duration such as 120s or 5m, or forever`},
		{append(app, "--drain-timeout", "0"), `--drain-timeout: "0" is not possible; give a duration such as 120s or 5m, or forever`},
		{append(app, "--max-requests-jitter", "5"),
			"--max-requests: there is a jitter (--max-requests-jitter) but no --max-requests; give both, or none"},
		{append(app, "--max-memory", "lots"), `--max-memory: "lots" is not possible; give a size such as 512MiB`},
		{append(app, "--max-age", "0"), `--max-age: "0" is not possible; give a duration such as 12h`},
		{append(app, "--autoreload=yes"), `--autoreload: "yes" is unknown; use on, browser or off`},
		{append(app, "--workers", "4", "--max-workers", "2"), "--workers: at least 4 and at most 2 is not possible; give --max-workers the larger number"},
		{append(app, "--max-workers", "-1"), "--max-workers: -1 is not possible; give 1 or more, or leave it out"},
		{append(app, "--max-workers", "0"), "--max-workers: 0 is not possible; give 1 or more, or leave it out"},
		{append(app, "--max-workers", "2", "--workers-runtime", "thread"), threads},
		{append(app, "--idle-timeout", "1m"),
			"--idle-timeout: the number of workers does not change; give --max-workers too, or leave this out"},
		{append(app, "--working-dir", "none/{http.request.host.labels.2}"),
			`--working-dir: "none/{http.request.host.labels.2}": "` + dir + `/none/": no such file or directory; make the folder, or correct its name`},
		{append(app, "--idle-timeout", "1"), `--idle-timeout: "1" is not possible; give a duration such as 5m`},
		{append(app, "--request-timeout", "10"), `--request-timeout: "10" is not possible; give a duration such as 120s or 5m, or forever`},
		{append(app, "--colour"), "unknown flag: --colour"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.args), func(t *testing.T) {
			_, err := serverConfig(t, test.args...)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestDomains(t *testing.T) {
	t.Setenv("DOMAIN", "example.com")
	for _, domain := range []string{
		"example.com", "*.example.com", "localhost", "a-b.c_d.example", "Example.COM", "xn--bcher-kva.example", "bücher.example", "例え.テスト",
		"हिन्दी.example", "127.0.0.1", "::1", "{env.DOMAIN}", "*.{env.DOMAIN}",
	} {
		if err := checkDomain(domain); err != nil {
			t.Error(err)
		}
	}
	for _, domain := range []string{
		"http://example.com", "exa mple", "example.com:99", "example.com/path", "example.com.", ".example.com", "a..b", "*", "a.*.example",
		"-a.example", "a-.example", "[::1]", "example.com, example.org", "a@example.com", "1.2.3.4/8",
	} {
		err := checkDomain(domain)
		want := fmt.Sprintf("domain: %q is not a host name; write for example example.com, without https://, port or path", domain)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestUnexpectedArguments(t *testing.T) {
	for _, test := range []struct {
		argument   string
		autoreload bool
		want       string
	}{
		{"browser", true, `unexpected argument "browser"; write --autoreload=browser`},
		{"off", true, `unexpected argument "off"; write --autoreload=off`},
		{"browser", false, `unexpected argument "browser"; give the app as --app module:variable`},
		{"main:app", true, `unexpected argument "main:app"; give the app as --app module:variable`},
		{"", true, `unexpected argument ""; give the app as --app module:variable`},
	} {
		if err := unexpected(test.argument, test.autoreload); err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func TestStartReason(t *testing.T) {
	for chain, want := range map[string]string{
		`loading new config: python app module: start: python app "main:app": no module`:                                              `python app "main:app": no module`,
		"loading new config: http app module: start: listening on :80: listen tcp :80: bind: permission denied":                       "listening on :80: listen tcp :80: bind: permission denied",
		"loading new config: python app module: start: module_wsgi 'a:b': there is no module 'a' (change module_wsgi or working_dir)": "--app 'a:b': there is no module 'a' (change --app or --working-dir)",
		"loading new config: python app module: start: module_asgi 'a:b': b in a.py is a WSGI app: use module_wsgi":                   "--app 'a:b': b in a.py is a WSGI app: use --server-type wsgi",
		"something else": "something else",
	} {
		if got := startReason(errors.New(chain)).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestServerIsACaddyCommand(t *testing.T) {
	if _, ok := caddycmd.Commands()["python-server"]; !ok {
		t.Error("caddy python-server is not registered")
	}
}
