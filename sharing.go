package caddysnake

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// checkSharing tells whether two apps can run as threads of one interpreter: it has one environment, and one module for
// each name. The interpreters themselves are compared when the apps start, because nothing else can tell.
func checkSharing(a, b settings) error {
	if a.WorkersRuntime != runtimeThread || b.WorkersRuntime != runtimeThread {
		return nil
	}
	apps := fmt.Sprintf("python apps %q in %s and %q in %s share one interpreter (workers_runtime thread)",
		a.App, a.WorkingDir, b.App, b.WorkingDir)
	if name := differingVariable(a.Env, b.Env); name != "" {
		return fmt.Errorf("%s, but env_var and env_file set %s differently: give both the same variables%s",
			apps, name, advise(", or set workers_runtime process for one", ""))
	}
	if a.WorkingDir == b.WorkingDir {
		return nil
	}
	names := moduleNames(b.WorkingDir, b.App)
	for _, name := range slices.Sorted(maps.Keys(moduleNames(a.WorkingDir, a.App))) {
		if names[name] {
			return fmt.Errorf("%s, but both folders have a module %q: rename one%s",
				apps, name, advise(", or set workers_runtime process for one app", ""))
		}
	}
	return nil
}

// differingVariable returns a name that two environments do not give the same value, "" if there is none.
func differingVariable(a, b []string) string {
	values := map[string]string{}
	for _, entry := range a {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	for _, entry := range b {
		name, value, _ := strings.Cut(entry, "=")
		if other, ok := values[name]; !ok || other != value {
			return name
		}
		delete(values, name)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		return name
	}
	return ""
}

// identifier is what an import statement can name, in the part of Unicode that is likely in a file's name.
var identifier = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_]*$`)

// neverImported are modules that lie in the folders of many apps and that apps do not import, unless they are the app.
var neverImported = map[string]bool{
	"__pycache__": true, "conftest": true, "manage": true, "setup": true, "test": true, "tests": true,
}

const (
	// moduleDepth is how deep in a folder modules are looked for, as in api/v1/users/views.py.
	moduleDepth = 4
	// moduleFolders is how many folders in a folder are looked at: it may hold what users have uploaded.
	moduleFolders = 1000
)

// moduleNames returns what the app "module:variable" can import from dir: modules, packages and folders that hold modules.
func moduleNames(dir, app string) map[string]bool {
	names := map[string]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return names // the app's start says what is wrong
	}
	own := app[:strings.IndexAny(app+":", ".:")]
	for _, entry := range entries {
		name, rest, _ := strings.Cut(entry.Name(), ".")
		budget := moduleFolders
		switch {
		case name != own && (neverImported[name] || !identifier.MatchString(name)):
		case hasModuleSuffix(entry), rest == "" && (name == own || holdsModules(filepath.Join(dir, name), moduleDepth, &budget)):
			names[name] = true
		}
	}
	return names
}

// isModule tells whether an entry of a folder is the file of a module.
func isModule(entry os.DirEntry) bool {
	name, _, _ := strings.Cut(entry.Name(), ".")
	return identifier.MatchString(name) && hasModuleSuffix(entry)
}

func hasModuleSuffix(entry os.DirEntry) bool {
	_, rest, _ := strings.Cut(entry.Name(), ".")
	return slices.Contains([]string{".py", ".pyc", ".so", ".pyd"}, filepath.Ext("."+rest))
}

// holdsModules tells whether there are modules in dir, or in folders in it down to that depth. It looks at no more of them
// than the budget allows.
func holdsModules(dir string, depth int, budget *int) bool {
	if depth == 0 || *budget == 0 || skipped(dir) {
		return false
	}
	*budget--
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, isModule) || slices.ContainsFunc(entries, func(entry os.DirEntry) bool {
		return !entry.Type().IsRegular() && identifier.MatchString(entry.Name()) &&
			holdsModules(filepath.Join(dir, entry.Name()), depth-1, budget)
	})
}
