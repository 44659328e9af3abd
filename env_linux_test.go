package caddysnake

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever opens a named pipe to read waits for somebody who writes, and nobody may.
func TestANamedPipeIsNoEnvFile(t *testing.T) {
	dir := tenants(t, "alice")
	pipe := filepath.Join(dir, "alice", ".env")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe: `env_file: "` + pipe + `": it is not a regular file; give the path of a file of NAME=VALUE lines`,
		"alice/.env": `env_file: "alice/.env" in working_dir ` + dir + `: it is not a regular file; a relative path must lie within working_dir, ` +
			`symlinks resolved; give an absolute path for a file elsewhere`,
	} {
		c := Config{EnvFiles: []string{path}}
		if got, err := c.readEnv(dir); err == nil || err.Error() != want {
			t.Errorf("got  %q, %v\nwant %s", got, err, want)
		}
	}
	template, err := dynamicTemplate(`{"module_wsgi": "main:app", "env_files": ["` + dir + `/{http.request.host.labels.2}/.env"]}`)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = template.locate([]string{"alice"})
	if _, ok := errors.AsType[*noApp](err); !ok {
		t.Errorf("got %v, want that there is no app", err)
	}
}

// An administrator may have a device read, which gives what it gives; nobody else may.
func TestADeviceAsEnvFile(t *testing.T) {
	dir := t.TempDir()
	link(t, "/dev/null", filepath.Join(dir, ".env"))
	c := Config{EnvFiles: []string{"/dev/null"}}
	if got, err := c.readEnv(dir); err != nil || len(got) > 0 {
		t.Errorf("got %q, %v", got, err)
	}
	c = Config{EnvFiles: []string{".env"}}
	if _, err := c.readEnv(dir); err == nil {
		t.Error("a link out of working_dir is followed")
	}
}
