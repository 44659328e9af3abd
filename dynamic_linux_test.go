package caddysnake

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// denied calls f while nobody may look into dir, not even root.
func denied(t *testing.T, dir string, f func()) {
	t.Helper()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(dir, 0o700) }()
	runtime.LockOSThread() // who accesses files is the thread's
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	}
	f()
}

// Only what is not there is gone. What cannot be looked at may be there: its app goes on, and none is started in its place.
func TestWhatCannotBeLookedAtIsNotGone(t *testing.T) {
	for _, test := range []struct{ name, config, dir, file string }{
		{"working_dir", `"module_wsgi": "main:app", "working_dir": "{env.ROOT}/sites/{http.request.host.labels.2}"`, "sites", "sites/alice"},
		{"venv", `"module_wsgi": "main:app", "venv_path": "{env.ROOT}/sites/{http.request.host.labels.2}"`, "sites", "sites/alice"},
		{"env_file", `"module_wsgi": "main:app", "env_files": ["{env.ROOT}/env/{http.request.host.labels.2}"]`, "env", "env/alice"},
		{"module", `"module_wsgi": "{http.request.host.labels.2}:app", "working_dir": "{env.ROOT}/apps"`, "apps", "apps/alice.py"},
		{"package", `"module_wsgi": "{http.request.host.labels.2}:app", "working_dir": "{env.ROOT}/packages"`, "packages", "packages/alice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := tenants(t, "sites/alice", "env", "apps", "packages/alice")
			for _, dir := range []string{filepath.Dir(root), root} {
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			writeFile(t, root, "env/alice", "")
			writeFile(t, root, "apps/alice.py", "")
			t.Setenv("ROOT", root)
			template, err := dynamicTemplate(`{` + test.config + `}`)
			if err != nil {
				t.Fatal(err)
			}
			apps := newDynamicApps(template, zap.NewNop())
			defer close(apps.over)
			status := func() int {
				_, err := apps.acquire(httptest.NewRecorder(), requestFor("alice.example.com", "/"))
				answer, ok := errors.AsType[caddyhttp.HandlerError](err)
				if !ok {
					t.Fatalf("got %v", err)
				}
				return answer.StatusCode
			}
			denied(t, root+"/"+test.dir, func() {
				if _, _, err := template.locate([]string{"alice"}); !errors.Is(err, fs.ErrPermission) {
					t.Errorf("got %v", err)
				}
				if template.isGone([]string{"alice"}) {
					t.Error("it has gone")
				}
				if got := status(); got != http.StatusServiceUnavailable {
					t.Errorf("status %d", got)
				}
				if len(apps.apps) > 0 {
					t.Error("it was started")
				}
			})
			if template.isGone([]string{"alice"}) {
				t.Error("it has not come back")
			}
			if err := os.Remove(root + "/" + test.file); err != nil {
				t.Fatal(err)
			}
			if !template.isGone([]string{"alice"}) {
				t.Error("it is there still")
			}
			if got := status(); got != http.StatusNotFound {
				t.Errorf("status %d", got)
			}
		})
	}
}
