package caddysnake

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRefusedEnvNames(t *testing.T) {
	for _, name := range []string{
		"CADDYSNAKE_FD", "caddysnake_x", "PYTHONUNBUFFERED", "PythonUnbuffered", "LD_PRELOAD", "LD_LIBRARY_PATH", "ld_audit",
		"DYLD_INSERT_LIBRARIES", "", "1A", "A B", "A=B", "A\x00", "Ä", "A.B", "LD_", "A\n",
	} {
		if checkEnv(name, "") == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	for _, name := range []string{"A", "_", "a1", "PYTHONPATH", "LDFLAGS", "CADDYSNAKE", "OLD_ONE", "PYTHONUNBUFFERED_"} {
		if err := checkEnv(name, ""); err != nil {
			t.Error(err)
		}
	}
}

// Files come before variables, a later file wins over an earlier one.
func TestEnvPrecedence(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "base.env", "A=first\nA=base\nB=base\nC=base\n")
	second := writeFile(t, t.TempDir(), "second.env", "B=second\nC=second\n")
	c := Config{EnvFiles: []string{"base.env", second}, EnvVars: map[string]string{"C": "var", "D": "var"}}

	got, err := c.readEnv(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=base", "B=second", "C=var", "D=var"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRelativeEnvFilesStayInWorkingDir(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "app")
	sibling := filepath.Join(parent, "app-secret")
	for _, folder := range []string{dir, filepath.Join(dir, "sub"), sibling} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	outside := writeFile(t, sibling, "outside.env", "A=outside\n")
	writeFile(t, dir, "inside.env", "A=inside\n")
	link(t, "../app-secret/outside.env", filepath.Join(dir, "out.env"))
	link(t, outside, filepath.Join(dir, "absolute.env"))
	link(t, sibling, filepath.Join(dir, "folder"))
	link(t, "../inside.env", filepath.Join(dir, "sub", "in.env"))

	for _, path := range []string{
		"../app-secret/outside.env", "sub/../../app-secret/outside.env", "out.env", "absolute.env", "folder/outside.env",
	} {
		c := Config{EnvFiles: []string{path}}
		got, err := c.readEnv(dir)
		want := fmt.Sprintf("env_file: %q in working_dir %s: path escapes from parent; a relative path must lie within working_dir, symlinks resolved; give an absolute path for a file elsewhere", path, dir)
		if err == nil || err.Error() != want {
			t.Errorf("got  %q, %v\nwant %s", got, err, want)
		}
	}
	for path, want := range map[string]string{
		"inside.env": "A=inside", "./sub/../inside.env": "A=inside", "sub/in.env": "A=inside",
		outside: "A=outside", filepath.Join(dir, "out.env"): "A=outside",
	} {
		c := Config{EnvFiles: []string{path}}
		if got, err := c.readEnv(dir); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
}

func TestEnvFileErrors(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "bad.env", "A=1\nB\n")
	writeFile(t, dir, "refused.env", "A=1\n\nexport LD_PRELOAD=/tmp/x.so\n")
	writeFile(t, dir, "nul.env", "A=1\x002")
	large := writeFile(t, dir, "large.env", strings.Repeat("#", maxEnvFile+1))
	const elsewhere = "; a relative path must lie within working_dir, symlinks resolved; give an absolute path for a file elsewhere"
	const lines = "; give the path of a file of NAME=VALUE lines"
	for path, want := range map[string]string{
		"missing.env":                     fmt.Sprintf(`"missing.env" in working_dir %s: no such file or directory%s`, dir, elsewhere),
		filepath.Join(dir, "missing.env"): fmt.Sprintf(`"%s/missing.env": no such file or directory%s`, dir, lines),
		dir:                               fmt.Sprintf(`%q: it is not a regular file%s`, dir, lines),
		"bad.env":                         "bad.env:2: there is no =; write NAME=VALUE",
		"refused.env":                     "refused.env:3: LD_PRELOAD is refused, as is every name that begins with CADDYSNAKE_, LD_ or DYLD_; remove it, or set it for Caddy itself",
		"nul.env":                         "nul.env:1: the value of A contains a NUL byte, which no environment can hold; remove it",
		large:                             fmt.Sprintf(`%q is larger than 1048576 bytes%s`, large, lines),
	} {
		c := Config{EnvFiles: []string{path}}
		if got, err := c.readEnv(dir); err == nil || err.Error() != "env_file: "+want {
			t.Errorf("got  %q, %v\nwant env_file: %s", got, err, want)
		}
	}
}

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
