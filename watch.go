package caddysnake

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// debounce is how long nothing must have changed before a change is told: editors write a file in several steps, and a
// checkout writes many.
const debounce = 500 * time.Millisecond

// maxHeld is how long what is to wait for the end of changes does: some app may write files all the time.
const maxHeld = 2 * time.Second

// rootInterval is how often the root is looked at: a deploy or a checkout may put another one in its place, and the system
// does not tell that it has removed a folder as long as a process is in it.
const rootInterval = 250 * time.Millisecond

// watcher tells when Python files below a folder are written, made, removed or renamed. Folders that are hidden, hold
// installed packages or compiled modules are left out, and links are not followed.
type watcher struct {
	root   string
	events *fsnotify.Watcher
	logger *zap.Logger
	to     watching

	// Only run uses these, once it has begun.
	folders map[string]struct{} // that are watched
	inode   os.FileInfo         // of the root that is watched
	changed []string            // files, in the order of their first change
}

// watching is who is told. While one of these runs, further changes wait.
type watching interface {
	// begun says that files are changing.
	begun()
	// fired says which files have changed, once nothing has changed for debounce.
	fired(changed []string)
	// calmed follows begun if there is no fired yet: nothing has changed after all, or for maxHeld no end is in sight.
	calmed()
}

// watch begins to watch root.
func watch(root string, logger *zap.Logger, to watching) (*watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s for autoreload: %w", root, watchAdvice(err))
	}
	w := &watcher{root: root, events: events, logger: logger, to: to, folders: map[string]struct{}{}}
	if err := w.add(root, func(string) {}); err != nil {
		_ = events.Close()
		return nil, fmt.Errorf("watching %s for autoreload: %w", root, watchAdvice(err))
	}
	go w.run()
	return w, nil
}

// close ends it. It does not wait for a call of fired that is under way.
func (w *watcher) close() { _ = w.events.Close() }

func (w *watcher) run() {
	quiet, held := stoppedTimer(), stoppedTimer()
	changing := false
	change := func() {
		quiet.Reset(debounce)
		if !changing {
			changing = true
			held.Reset(maxHeld)
			w.to.begun()
		}
	}
	look := time.NewTicker(rootInterval)
	defer look.Stop()
	for {
		select {
		case event, ok := <-w.events.Events:
			if !ok {
				return
			}
			if before := len(w.changed); w.look(event) || len(w.changed) > before {
				change()
			}
		case err, ok := <-w.events.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) { // some were lost: anything may have changed, folders may be new
				w.addLater(w.root)
				w.note(w.root)
				change()
				continue
			}
			w.logger.Error("watching for autoreload", zap.Error(err))
		case <-look.C:
			if !w.isThere() && w.isBack() {
				w.note(w.root)
				change()
			}
		case <-held.C:
			w.to.calmed()
		case <-quiet.C:
			changing = false
			held.Stop()
			if len(w.changed) > 0 {
				w.to.fired(w.changed)
				w.changed = nil
			} else {
				w.to.calmed()
			}
		}
	}
}

func stoppedTimer() *time.Timer {
	timer := time.NewTimer(0)
	<-timer.C
	return timer
}

// look notes what an event says. It returns whether it is a change of a file, be it one that was noted before.
func (w *watcher) look(event fsnotify.Event) bool {
	if event.Op == fsnotify.Chmod {
		return false
	}
	path := event.Name
	gone := event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename)
	if _, known := w.folders[path]; known && gone {
		w.drop(path)
		if event.Has(fsnotify.Rename) { // otherwise each file had its own event
			w.note(path)
		}
		return event.Has(fsnotify.Rename)
	}
	switch {
	case filepath.Base(path) == venvMark && filepath.Dir(path) != w.root && event.Has(fsnotify.Create):
		// What is being made here is a virtual environment.
		w.drop(filepath.Dir(path))
	case isPython(path):
		w.note(path)
		return true
	case event.Has(fsnotify.Create) && !skipped(path):
		w.addLater(path)
	}
	return false
}

// isThere tells whether the root is the folder that is watched. It forgets one that is not.
func (w *watcher) isThere() bool {
	_, watched := w.folders[w.root]
	if !watched {
		return false
	}
	if info, err := os.Lstat(w.root); err == nil && os.SameFile(info, w.inode) {
		return true
	}
	w.drop(w.root)
	return false
}

// isBack watches the root, which had gone, if there is one again.
func (w *watcher) isBack() bool {
	if err := w.add(w.root, func(string) {}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.logger.Error("watching for autoreload", zap.String("folder", w.root), zap.Error(watchAdvice(err)))
	}
	_, watched := w.folders[w.root]
	return watched
}

// note adds to changed.
func (w *watcher) note(path string) {
	for _, other := range w.changed {
		if other == path {
			return
		}
	}
	w.changed = append(w.changed, path)
}

// add watches a folder and those below it. found gets the Python files in them.
func (w *watcher) add(folder string, found func(path string)) error {
	return walkSources(w.root, folder, func(path string, entry fs.DirEntry) error {
		if !entry.IsDir() {
			found(path)
			return nil
		}
		var before os.FileInfo
		if path == w.root {
			before, _ = entry.Info() // as it was before it is watched: if it changes meanwhile, isThere finds another one
		}
		if err := w.events.Add(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) { // it has gone meanwhile
				return nil
			}
			return err
		}
		if path == w.root {
			w.inode = before
		}
		w.folders[path] = struct{}{}
		return nil
	})
}

// walkSources visits a folder of a root, those below it, and the Python files in them, but what is left out.
func walkSources(root, folder string, visit func(path string, entry fs.DirEntry) error) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != root: // it has gone meanwhile
			return nil
		case err != nil:
			return err
		case entry.IsDir() && path != root && skipped(path):
			return fs.SkipDir
		case entry.IsDir() || isPython(path):
			return visit(path, entry)
		}
		return nil
	})
}

// changedSince returns the Python files of a root that have come to be what they are since then, as far as it can be read.
// One that was copied or moved there may say that it was modified long before.
func changedSince(root string, then time.Time) []string {
	var changed []string
	_ = walkSources(root, root, func(path string, entry fs.DirEntry) error {
		if info, err := entry.Info(); err == nil && !entry.IsDir() && changeTime(info).After(then) {
			changed = append(changed, path)
		}
		return nil
	})
	return changed
}

// addLater watches what was made just now, if it is a folder, and notes the files that are in it by now.
func (w *watcher) addLater(path string) {
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return
	}
	if err := w.add(path, w.note); err != nil {
		w.logger.Error("watching for autoreload", zap.String("folder", path), zap.Error(watchAdvice(err)))
	}
}

// drop ends to watch a folder and those below it, and forgets what has changed there.
func (w *watcher) drop(folder string) {
	if folder == w.root {
		w.logger.Warn("the folder that autoreload watches has gone", zap.String("folder", folder))
	}
	below := folder + string(filepath.Separator)
	for path := range w.folders {
		if path == folder || strings.HasPrefix(path, below) {
			_ = w.events.Remove(path) // fsnotify has removed some itself
			delete(w.folders, path)
		}
	}
	kept := w.changed[:0]
	for _, path := range w.changed {
		if !strings.HasPrefix(path, below) {
			kept = append(kept, path)
		}
	}
	w.changed = kept
}

// isPython tells whether a change of this file is one of the app. Editors put hidden files beside it.
func isPython(path string) bool {
	name := filepath.Base(path)
	return strings.HasSuffix(name, ".py") && !strings.HasPrefix(name, ".")
}

// venvMark is the file that makes a folder a virtual environment.
const venvMark = "pyvenv.cfg"

// skipped tells whether a folder is left out.
func skipped(folder string) bool {
	name := filepath.Base(folder)
	return strings.HasPrefix(name, ".") || name == "__pycache__" || name == "node_modules" || exists(filepath.Join(folder, venvMark))
}

// watchAdvice says what to do about the system's limits.
func watchAdvice(err error) error {
	if isWatchLimit(err) {
		return fmt.Errorf("%w; raise the limit, on Linux with sysctl fs.inotify.max_user_watches or max_user_instances", err)
	}
	return err
}
