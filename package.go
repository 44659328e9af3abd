package caddysnake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/caddyserver/caddy/v2"
)

// The pattern names files: that of a bare folder would leave out __init__.py and __main__.py.
//
//go:embed python/caddysnake/*.py
var packageFiles embed.FS

const packageRoot = "python/caddysnake"

// unpacking is where the worker package is unpacked to in this process, when Caddy's data folder will not do.
var unpacking struct {
	mu   sync.Mutex // is held while somebody unpacks
	temp string     // a temporary folder, "" if there is none; guarded by mu
}

// unpackedPackage returns the folder that holds the worker package, unpacked once for each version of it, and again if
// somebody has removed it. The folder is private to this user and named by its content's hash, so it stays from one run to
// the next and Python's compiled files with it; every file is compared with the embedded one before it is used. Where Caddy
// has no data folder that is private, a temporary one serves this process.
func unpackedPackage() (string, error) {
	unpacking.mu.Lock()
	defer unpacking.mu.Unlock()
	dir, err := unpackInto(filepath.Join(caddy.AppDataDir(), "python"))
	if err == nil {
		return dir, nil
	}
	if unpacking.temp == "" {
		temp, tempErr := os.MkdirTemp("", "caddysnake-")
		if tempErr != nil {
			return "", errors.Join(err, tempErr)
		}
		unpacking.temp = temp
		caddy.OnExit(func(_ context.Context) { _ = os.RemoveAll(temp) })
	}
	dir, tempErr := unpackInto(unpacking.temp)
	if tempErr != nil {
		return "", errors.Join(err, tempErr)
	}
	return dir, nil
}

// unpackInto makes root/HASH/caddysnake hold exactly the embedded files and returns its path.
func unpackInto(root string) (string, error) {
	files, hash, err := embeddedFiles()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	if err := checkPrivate(root); err != nil {
		return "", err
	}
	dir := filepath.Join(root, hash)
	pkg := filepath.Join(dir, "caddysnake")
	if intact(dir, pkg, files) {
		return pkg, nil
	}
	// Build it beside its place and rename, so that a second Caddy never sees half of it.
	temp, err := os.MkdirTemp(root, "new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.Mkdir(filepath.Join(temp, "caddysnake"), 0o700); err != nil {
		return "", err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(temp, "caddysnake", name), content, 0o600); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil && !intact(dir, pkg, files) {
		return "", err
	}
	return pkg, nil
}

// embeddedFiles returns the package's files by name, and a hash of them all.
func embeddedFiles() (map[string][]byte, string, error) {
	entries, err := fs.ReadDir(packageFiles, packageRoot)
	if err != nil {
		return nil, "", err
	}
	files := map[string][]byte{}
	sum := sha256.New()
	for _, entry := range entries {
		content, err := packageFiles.ReadFile(packageRoot + "/" + entry.Name())
		if err != nil {
			return nil, "", err
		}
		files[entry.Name()] = content
		_, _ = fmt.Fprintf(sum, "%s %d\n", entry.Name(), len(content))
		_, _ = sum.Write(content)
	}
	return files, hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// intact tells whether the folder is private and holds exactly these files; Python's own __pycache__ may be beside them.
func intact(dir, pkg string, files map[string][]byte) bool {
	if checkPrivate(dir) != nil || checkPrivate(pkg) != nil {
		return false
	}
	entries, err := os.ReadDir(pkg)
	if err != nil {
		return false
	}
	found := 0
	for _, entry := range entries {
		if entry.Name() == "__pycache__" {
			continue
		}
		want, known := files[entry.Name()]
		if !known || !entry.Type().IsRegular() {
			return false
		}
		got, err := os.ReadFile(filepath.Join(pkg, entry.Name()))
		if err != nil || !bytes.Equal(got, want) {
			return false
		}
		found++
	}
	return found == len(files)
}
