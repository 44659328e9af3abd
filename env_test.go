package caddysnake

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseEnv(t *testing.T) {
	tests := []struct {
		name, text string
		want       map[string]string
	}{
		{"empty", "", nil},
		{"comments and blank lines", "# A=1\n\n  \t\n   # B=2", nil},
		{"plain", "A=1\nB=two words\n", map[string]string{"A": "1", "B": "two words"}},
		{"blanks around", "  A  =  1  \n\tB=\t2\t", map[string]string{"A": "1", "B": "2"}},
		{"empty values", "A=\nB=''\nC=\"\"\nD=   # nothing", map[string]string{"A": "", "B": "", "C": "", "D": ""}},
		{"export", "export A=1\nexport\tB='2'\nexport=3\nexported=4",
			map[string]string{"A": "1", "B": "2", "export": "3", "exported": "4"}},
		{"trailing comment", "A=1 # one\nB=a#b # c\nC=#d\nD='#' # d\nE=\"#\"#e",
			map[string]string{"A": "1", "B": "a#b", "C": "#d", "D": "#", "E": "#"}},
		{"single quotes are literal", `A='\n $B "c" \'`, map[string]string{"A": `\n $B "c" \`}},
		{"double quotes have escapes", `A="a\nb\tc\rd \"e\" \\ \$f \x \'"`,
			map[string]string{"A": "a\nb\tc\rd \"e\" \\ $f \\x \\'"}},
		{"quotes inside a plain value", `A=it's "so"`, map[string]string{"A": `it's "so"`}},
		{"backslashes in a plain value", `A=C:\new\table`, map[string]string{"A": `C:\new\table`}},
		{"no expansion", "A=1\nB=$A ${A} $(id) `id`", map[string]string{"A": "1", "B": "$A ${A} $(id) `id`"}},
		{"values over lines", "A=\"1\n 2 # 2\n\"\nB='\n'\nC=3", map[string]string{"A": "1\n 2 # 2\n", "B": "\n", "C": "3"}},
		{"Windows line ends and byte order mark", "\ufeffA=1\r\nB=\"2\r\n3\"\r\nC=4\r", map[string]string{"A": "1", "B": "2\n3", "C": "4"}},
		{"the last one wins", "A=1\nA=2", map[string]string{"A": "2"}},
		{"equals signs in values", "A=b=c\nB==", map[string]string{"A": "b=c", "B": "="}},
		{"bytes that are not UTF-8", "A=\xff\xfe", map[string]string{"A": "\xff\xfe"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseEnv(".env", test.text)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestParseEnvErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no equals sign", "A=1\nsecret", ".env:2: there is no =; write NAME=VALUE"},
		{"no name", "=1", ".env:1: what is before = is not a name; use letters, digits and _, with no digit first"},
		{"a digit first", "\n\n1A=1", ".env:3: what is before = is not a name; use letters, digits and _, with no digit first"},
		{"a dash", "A-B=1", ".env:1: what is before = is not a name; use letters, digits and _, with no digit first"},
		{"unclosed quote", "A=1\nB=\"2\nC=3\n", `.env:2: the value that begins here has no closing "`},
		{"unclosed by an escape", `A="\"`, `.env:1: the value that begins here has no closing "`},
		{"text after a quote", "A='it's'", ".env:1: the value goes on after the closing '; put all of it in quotes"},
		{"after a value over lines", "A='1\n2\n3'\nB", ".env:4: there is no =; write NAME=VALUE"},
		{"refused", "A=1\nLD_PRELOAD=/tmp/x.so",
			".env:2: LD_PRELOAD is refused, as is every name that begins with CADDYSNAKE_, LD_ or DYLD_; remove it, or set it for Caddy itself"},
		{"NUL", "A=1\x002", ".env:1: the value of A contains a NUL byte, which no environment can hold; remove it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseEnv(".env", test.text)
			if err == nil {
				t.Fatalf("no error but %q", got)
			}
			if err.Error() != test.want {
				t.Errorf("got  %s\nwant %s", err, test.want)
			}
		})
	}
}

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
	writeFile(t, dir, "base.env", "A=base\nB=base\nC=base\n")
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
	large := writeFile(t, dir, "large.env", strings.Repeat("#", maxEnvFile+1))
	const elsewhere = "; a relative path must lie within working_dir, symlinks resolved; give an absolute path for a file elsewhere"
	const lines = "; give the path of a file of NAME=VALUE lines"
	for path, want := range map[string]string{
		"missing.env":                     fmt.Sprintf(`"missing.env" in working_dir %s: no such file or directory%s`, dir, elsewhere),
		filepath.Join(dir, "missing.env"): fmt.Sprintf(`"%s/missing.env": no such file or directory%s`, dir, lines),
		dir:                               fmt.Sprintf(`%q: is a directory%s`, dir, lines),
		"bad.env":                         "bad.env:2: there is no =; write NAME=VALUE",
		large:                             fmt.Sprintf(`%q is larger than 1048576 bytes%s`, large, lines),
	} {
		c := Config{EnvFiles: []string{path}}
		if got, err := c.readEnv(dir); err == nil || err.Error() != "env_file: "+want {
			t.Errorf("got  %q, %v\nwant env_file: %s", got, err, want)
		}
	}
}

// Whatever a file holds, what is read from it fits into an environment, and survives being written and read again.
func FuzzParseEnv(f *testing.F) {
	for _, seed := range []string{
		"A=1 # one\nexport B='2'\n", "A=\"1\\n\\\"\n\"#\r\nB=\\", "\ufeff# x\nA==", "A='", "=", "A=\x00", "LD_X=1", "export =1",
	} {
		f.Add(seed)
	}
	quote := strings.NewReplacer("\\", `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`)
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := parseEnv("f", text)
		if err != nil {
			var line int
			if _, scanErr := fmt.Sscanf(err.Error(), "f:%d: ", &line); scanErr != nil || line < 1 || line > 1+strings.Count(text, "\n") {
				t.Fatalf("no line in %q", err)
			}
			return
		}
		var written strings.Builder
		for name, value := range vars {
			if err := checkEnv(name, value); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&written, "%s=\"%s\"\n", name, quote.Replace(value))
		}
		again, err := parseEnv("f", written.String())
		if err != nil || !maps.Equal(vars, again) {
			t.Fatalf("%q became %q, %v", vars, again, err)
		}
	})
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
