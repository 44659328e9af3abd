//go:build !windows

package caddysnake

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pythonThatSays makes an interpreter that answers every question so.
func pythonThatSays(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python3")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProbeSaysWhatIsWrong(t *testing.T) {
	const answer = `echo '{"version": "3.12.1", "supported": true, "library": "", "places": ["/opt/lib/libpython3.12.so.1.0"]}'`
	tests := []struct{ name, script, want string }{
		{"no shared library", answer, "has no shared libpython (looked for /opt/lib/libpython3.12.so.1.0); install it (on Debian and Ubuntu: " +
			"apt-get install libpython3.12; a Python that you build: ./configure --enable-shared), or set workers_runtime process"},
		{"too old", `echo '{"version": "3.9.18", "supported": false}'`,
			"is Python 3.9.18; workers_runtime thread needs CPython 3.10 or newer: change python_path or venv"},
		{"it fails", "echo starting >&2; echo no module named json >&2; exit 1", "exit status 1: no module named json"},
		{"it says something else", "echo hello", "invalid character 'h'"},
	}
	for _, test := range tests {
		python := pythonThatSays(t, test.script)
		_, err := probe(python)
		if err == nil || !strings.Contains(err.Error(), python) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestProbe(t *testing.T) {
	python := pythonThatSays(t, `echo '{"version": "3.13.0", "supported": true, "library": "/lib/x.so", "packages": ["/venv"], "free_threaded": true}'`)
	got, err := probe(python)
	if err != nil || got.Version != "3.13.0" || got.Library != "/lib/x.so" || len(got.Packages) != 1 || !got.FreeThreaded {
		t.Errorf("got %+v, %v", got, err)
	}
}
