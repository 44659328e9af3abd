package caddysnake

import (
	"net/http"
	"strings"
	"testing"
)

// Caddy drops such headers before a handler sees them unless it is told to expect them; here nobody has.
func TestThreat7NamesWithAnUnderscoreStayOutOfTheEnviron(t *testing.T) {
	r := requestTo("/")
	for _, name := range []string{"X_Real_Ip", "X_Real-Ip", "X-Real_Ip", "Remote_User", "Content_Type", "Content_Length", "_", "Host_"} {
		r.Header[http.CanonicalHeaderKey(name)] = []string{"spoofed"}
	}
	r.Header.Set("X-Real-Ip", "192.0.2.7")
	environ, scope := told(t, newRequest(r, rootPathAuto))
	for name, value := range environ {
		if value == "spoofed" {
			t.Errorf("%s is spoofed", name)
		}
	}
	if got := environ["HTTP_X_REAL_IP"]; got != "192.0.2.7" {
		t.Errorf("HTTP_X_REAL_IP is %q", got)
	}
	for _, pair := range scope["headers"].([]any) {
		name := string(pair.([]any)[0].([]byte))
		value := string(pair.([]any)[1].([]byte))
		if value == "spoofed" && !strings.Contains(name, "_") {
			t.Errorf("ASGI header %s is spoofed", name)
		}
	}
}

func TestThreat8ProxyStaysOut(t *testing.T) {
	r := requestTo("/")
	r.Header.Set("pRoXy", "http://evil.example")
	environ, scope := told(t, newRequest(r, rootPathAuto))
	if _, found := environ["HTTP_PROXY"]; found {
		t.Error("HTTP_PROXY is in the environ")
	}
	for _, pair := range scope["headers"].([]any) {
		if string(pair.([]any)[0].([]byte)) == "proxy" {
			t.Error("proxy is among the ASGI headers")
		}
	}
}

func TestTheEnvironSaysWhetherOthersRunTheAppToo(t *testing.T) {
	type flags struct{ multithread, multiprocess bool }
	for name, test := range map[string]struct {
		settings settings
		want     flags
	}{
		"one thread in one worker":  {settings{Workers: 1, Threads: 1}, flags{}},
		"threads":                   {settings{Workers: 1, Threads: 2}, flags{multithread: true}},
		"greenlets":                 {settings{Workers: 1, Threads: 1, Runtime: runtimeGevent}, flags{multithread: true}},
		"workers":                   {settings{Workers: 2, Threads: 1}, flags{multiprocess: true}},
		"workers that may be added": {settings{Workers: 1, Threads: 1, scaling: scaling{MaxWorkers: 2}}, flags{multiprocess: true}},
		"workers that are threads":  {settings{Workers: 2, Threads: 2, WorkersRuntime: runtimeThread}, flags{multithread: true}},
	} {
		if got := (flags{test.settings.isMultithread(), test.settings.isMultiprocess()}); got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}
