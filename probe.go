package caddysnake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// python is what an interpreter says of itself, see python/caddysnake/probe.py.
type python struct {
	Version      string   `json:"version"`
	Supported    bool     `json:"supported"`
	Library      string   `json:"library"` // "" if it is in none of places
	Places       []string `json:"places"`
	Packages     []string `json:"packages"`  // folders with installed packages, which a virtual environment has of its own
	UTF8Mode     bool     `json:"utf8_mode"` // it is in that mode, because of its version, the locale or PYTHONUTF8
	FreeThreaded bool     `json:"free_threaded"`
}

// probeTimeout is how long an interpreter may take to say that.
const probeTimeout = 30 * time.Second

// probe asks the interpreter at path whether and how it can run inside Caddy.
func probe(path string) (*python, error) {
	program, err := packageFiles.ReadFile(packageRoot + "/probe.py")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	answer, err := exec.CommandContext(ctx, path, "-c", string(program)).Output()
	var p python
	if err == nil {
		lines := bytes.Split(bytes.TrimSpace(answer), []byte("\n")) // a startup file of Python's may have written some
		err = json.Unmarshal(lines[len(lines)-1], &p)
	}
	if err != nil {
		detail := err.Error()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
			detail += ": " + lines[len(lines)-1]
		}
		return nil, fmt.Errorf("asking %s for its shared library: %s", path, detail)
	}
	switch {
	case !p.Supported:
		return nil, fmt.Errorf("%s is Python %s; workers_runtime thread needs CPython 3.10 or newer: change python_path or venv", path, p.Version)
	case p.Library == "":
		return nil, fmt.Errorf("%s has no shared libpython (looked for %s); install it (on Debian and Ubuntu: apt-get install libpython%s; "+
			"a Python that you build: ./configure --enable-shared)%s",
			path, p.Places[0], majorMinor(p.Version), advise(", or set workers_runtime process", ""))
	}
	return &p, nil
}

func majorMinor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
