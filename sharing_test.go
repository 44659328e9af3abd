package caddysnake

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// folderWith makes a folder with these files, each in a folder of its own if it says so.
func folderWith(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestModuleNames(t *testing.T) {
	dir := folderWith(t, "main.py", "fast.cpython-313-x86_64-linux-gnu.so", "plain.so", "shop/__init__.py", "jobs/nightly.py",
		"static/site.css", "api/v1/users/views.py", "not-a-module.py", "notes.txt", "1st.py", "manage.py", "tests/test_shop.py",
		".hidden/x.py", "__pycache__/main.cpython-313.pyc", "été.py", "sourceless.pyc", "old/sourceless.pyc",
		"env/pyvenv.cfg", "env/bin/activate_this.py", "cached/__pycache__/x.cpython-313.pyc", "deep/a/b/c/d/e/f.py")
	got := slices.Sorted(maps.Keys(moduleNames(dir, "main:app")))
	want := []string{"api", "fast", "jobs", "main", "old", "plain", "shop", "sourceless", "été"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for app, name := range map[string]string{"manage:app": "manage", "tests.test_shop:app": "tests", "static.js:app": "static",
		"not-a-module:app": "not-a-module"} {
		if !moduleNames(dir, app)[name] {
			t.Errorf("%s is not among the modules of %q", name, app)
		}
	}
	if moduleNames(dir, "installed.wsgi:app")["installed"] {
		t.Errorf("a package that is not in the folder is among its modules")
	}
	if names := moduleNames(filepath.Join(dir, "missing"), "main:app"); len(names) != 0 {
		t.Errorf("a folder that is not there has %v", names)
	}
}

func TestAppsThatShareAnInterpreter(t *testing.T) {
	shop, blog, other := folderWith(t, "main.py", "shop.py", "manage.py"), folderWith(t, "main.py", "manage.py"), folderWith(t, "other.py", "manage.py")
	tests, others := folderWith(t, "test.py", "shop.py"), folderWith(t, "test.py", "main.py")
	app := func(name, dir string, env ...string) settings {
		return settings{App: name, WorkingDir: dir, Env: env, WorkersRuntime: runtimeThread}
	}
	cases := []struct {
		name string
		a, b settings
		want []string // what the error names; none: no error
	}{
		{"one folder", app("main:app", shop), app("shop:app", shop), nil},
		{"different modules", app("main:app", shop, "A=1"), app("other:app", other, "A=1"), nil},
		{"the same module", app("main:app", shop), app("main:app", blog), []string{`"main:app" in ` + shop, `"main:app" in ` + blog, `module "main"`}},
		{"a module that is imported later", app("shop:app", shop), app("blog:app", blog), []string{`"shop:app"`, `"blog:app"`, `module "main"`}},
		{"apps that are called test", app("test:app", tests), app("test:app", others), []string{`"test:app" in ` + tests, `module "test"`}},
		{"an app that is called test", app("test:app", tests), app("main:app", others), nil},
		{"another value", app("main:app", shop, "A=1", "B=2"), app("shop:app", shop, "A=1", "B=secret"), []string{`"main:app"`, `"shop:app"`, " B "}},
		{"one variable more", app("main:app", shop, "A=1"), app("other:app", other), []string{`"main:app"`, `"other:app"`, " A "}},
		{"one variable less", app("main:app", shop), app("other:app", other, "A=1"), []string{" A "}},
	}
	for _, test := range cases {
		err := checkSharing(test.a, test.b)
		if (err != nil) != (test.want != nil) {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", test.name, err, part)
			}
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q tells the value", test.name, err)
		}
	}
}

func TestAppsOfAConfigThatCannotShareAreRefused(t *testing.T) {
	shop, blog := folderWith(t, "main.py"), folderWith(t, "main.py")
	for _, test := range []struct {
		first, second string
		refused       bool
	}{
		{runtimeThread, runtimeThread, true},
		{runtimeThread, runtimeProcess, false},
		{runtimeProcess, runtimeThread, false},
		{runtimeProcess, runtimeProcess, false},
	} {
		a := App{logger: zap.NewNop()}
		if _, err := a.register(new(Config), settings{App: "main:app", WorkingDir: shop, WorkersRuntime: test.first}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.register(new(Config), settings{App: "main:app", WorkingDir: blog, WorkersRuntime: test.second}); (err != nil) != test.refused {
			t.Errorf("%s and %s: %v", test.first, test.second, err)
		}
	}
}
