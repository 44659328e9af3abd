package caddysnake

import (
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Config says how one Python app runs. The Caddyfile, JSON and `caddy python-server` all fill this one struct.
type Config struct {
	// The WSGI app, "module:variable"; see importer.py for the forms. Exactly one module_* is required.
	ModuleWSGI string `json:"module_wsgi,omitempty"`

	// The ASGI app, "module:variable".
	ModuleASGI string `json:"module_asgi,omitempty"`

	// How many workers serve the app. Default: GOMAXPROCS.
	Workers int `json:"workers,omitempty"`

	// Where workers run: "process" (the default), or "thread" inside Caddy (not in this version).
	WorkersRuntime string `json:"workers_runtime,omitempty"`

	// How a worker runs requests. WSGI: "sync". ASGI: "native" (asyncio) or "uvloop". The default for ASGI is
	// uvloop where it is installed, else asyncio with a warning.
	Runtime string `json:"runtime,omitempty"`

	// WSGI threads in each worker. Default: 8.
	Threads int `json:"threads,omitempty"`

	// The ASGI lifespan protocol: "on" or "off" (the default).
	Lifespan string `json:"lifespan,omitempty"`

	// The app's folder: import root, current directory and sys.path[0]. Default: Caddy's current directory.
	WorkingDir string `json:"working_dir,omitempty"`

	// A virtual environment whose interpreter runs the workers.
	VenvPath string `json:"venv_path,omitempty"`

	// The interpreter that runs the workers; wins over the virtual environment's. Default: python3 on PATH.
	PythonPath string `json:"python_path,omitempty"`

	// Environment variables for the workers; they win over env_files.
	EnvVars map[string]string `json:"env_vars,omitempty"`

	// Files of NAME=VALUE lines, read in this order when the config is loaded.
	EnvFiles []string `json:"env_files,omitempty"`

	// How long the workers may take to get ready. Default: 120s; -1: for ever.
	StartTimeout caddy.Duration `json:"start_timeout,omitempty"`

	// SCRIPT_NAME and root_path. Default "auto": what other handlers removed from the front of the original path.
	RootPath string `json:"root_path,omitempty"`
}

// settings is a Config resolved: everything that decides how Python runs, and nothing else. Two handlers with equal
// settings share one pool.
type settings struct {
	Interface    string        // "wsgi" or "asgi"
	App          string        // "module:variable"
	Workers      int           // at least 1
	Runtime      string        // "sync"; "native", "uvloop" or "auto"
	Threads      int           // WSGI threads in each worker, at least 1
	Lifespan     bool          // run the lifespan protocol
	WorkingDir   string        // absolute, symlinks resolved; never empty
	Python       string        // the interpreter's path
	Env          []string      // NAME=VALUE on top of Caddy's own environment, sorted by name
	StartTimeout time.Duration // 0: for ever
}
