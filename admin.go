package caddysnake

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(new(adminAPI))
}

// adminAPI adds to Caddy's admin API:
//
//	GET  /python/                 the apps and their workers
//	POST /python/reload[?app=...] replaces the workers of all apps, or of those called "module:variable"
type adminAPI struct{}

// CaddyModule implements caddy.Module.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.python",
		New: func() caddy.Module { return new(adminAPI) },
	}
}

// Routes implements caddy.AdminRouter.
func (a *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/python/", Handler: caddy.AdminHandlerFunc(a.list)},
		{Pattern: reloadEndpoint, Handler: caddy.AdminHandlerFunc(a.reload)},
	}
}

const reloadEndpoint = "/python/reload"

// appStatus is one app as the admin API shows it.
type appStatus struct {
	App            string         `json:"app"` // "module:variable"
	Interface      string         `json:"interface"`
	WorkersRuntime string         `json:"workers_runtime"`
	WorkingDir     string         `json:"working_dir"`      // symlinks resolved
	Values         []string       `json:"values,omitempty"` // of the requests that choose it, for a dynamic app
	Waiting        int            `json:"waiting"`          // requests in the queue
	Workers        []workerStatus `json:"workers"`          // those of a former version that still drain are not among them
}

// workerStatus is one worker as the admin API shows it.
type workerStatus struct {
	Worker     int       `json:"worker"` // its number; one that drains and its successor have the same
	Pid        int       `json:"pid"`    // for a thread, Caddy's own
	State      string    `json:"state"`  // starting, ready, draining or stopping
	Started    time.Time `json:"started"`
	Requests   uint64    `json:"requests"`   // that it has been given, WebSockets included
	Open       int       `json:"open"`       // of those, how many go on
	WebSockets int       `json:"websockets"` // that are open
}

func (a *adminAPI) list(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.URL.Path != "/python/":
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("there is no %s; there are /python/ and %s", r.URL.Path, reloadEndpoint)}
	case r.Method != http.MethodGet:
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("use GET")}
	}
	list := []appStatus{}
	for _, ref := range liveRefs() {
		list = append(list, ref.status())
	}
	return writeJSON(w, list)
}

func (a *adminAPI) reload(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("use POST")}
	}
	// A client that loses patience does not stop what it has begun.
	reloaded, err := reloadApps(r.URL.Query().Get("app"))
	if _, ok := errors.AsType[*unknownAppError](err); ok {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
	}
	list := []appStatus{}
	for _, ref := range reloaded {
		list = append(list, ref.status())
	}
	if err == nil {
		return writeJSON(w, list)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	return json.NewEncoder(w).Encode(reloadFailure{err.Error(), list})
}

// reloadFailure is the answer when not all apps could be reloaded. It begins as all errors of Caddy's admin API do.
type reloadFailure struct {
	Error    string      `json:"error"`
	Reloaded []appStatus `json:"reloaded"`
}

func writeJSON(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

func (ref *poolRef) status() appStatus {
	s := ref.current()
	status := appStatus{
		App: s.App, Interface: s.Interface, WorkersRuntime: s.WorkersRuntime, WorkingDir: s.WorkingDir, Values: ref.values,
		Workers: []workerStatus{},
	}
	if p := ref.pool.Load(); p != nil {
		status.Waiting, status.Workers = p.status()
	}
	return status
}

func (p *pool) status() (waiting int, workers []workerStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	workers = []workerStatus{}
	for w := range p.alive {
		workers = append(workers, workerStatus{
			Worker: w.id, Pid: w.interp.Pid(), State: w.state.String(), Started: w.began,
			Requests: w.requests, Open: w.open, WebSockets: w.sockets,
		})
	}
	slices.SortFunc(workers, func(a, b workerStatus) int {
		if a.Worker != b.Worker {
			return a.Worker - b.Worker
		}
		return a.Started.Compare(b.Started)
	})
	return p.waiting.Len(), workers
}

// unknownAppError says that there is no app of that name.
type unknownAppError struct {
	name string
	refs []*poolRef // those that there are
}

func (e *unknownAppError) Error() string {
	if len(e.refs) == 0 {
		return fmt.Sprintf("there is no python app %q, nor any other", e.name)
	}
	var names []string
	for _, ref := range e.refs {
		names = append(names, ref.current().App)
	}
	slices.Sort(names)
	return fmt.Sprintf("there is no python app %q; there are %s", e.name, strings.Join(slices.Compact(names), ", "))
}

// Interface guard.
var _ caddy.AdminRouter = (*adminAPI)(nil)
