package caddysnake

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mliezun/caddy-snake/internal/dotenv"
)

// maxEnvFile bounds an env file, in bytes: whoever names a device or a log by mistake gets an error, not a full memory.
const maxEnvFile = 1 << 20

// readEnv returns what env_files and env_vars add to the environment of the workers, as sorted NAME=VALUE strings.
func (c *Config) readEnv(workingDir string) ([]string, error) {
	env := make(map[string]string)
	for _, file := range c.EnvFiles {
		text, err := readEnvFile(file, c.envRoot(file, workingDir))
		if err == nil {
			err = addEnvFile(env, file, text)
		}
		if err != nil {
			return nil, wrong("env_file", "%w", err)
		}
	}
	maps.Copy(env, c.EnvVars)

	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

// addEnvFile adds the variables in the text of an env file to env; the last of a name wins. Errors begin with "file:line: ".
func addEnvFile(env map[string]string, file, text string) error {
	assignments, err := dotenv.Parse(file, text)
	if err != nil {
		return err
	}
	for _, assignment := range assignments {
		if err := checkEnv(assignment.Name, assignment.Value); err != nil {
			return fmt.Errorf("%s:%d: %w", file, assignment.Line, err)
		}
		env[assignment.Name] = assignment.Value
	}
	return nil
}

// envRoot returns the folder that a file named in env_files must lie in; "" for anywhere.
func (c *Config) envRoot(path, workingDir string) string {
	if filepath.IsAbs(path) {
		return c.confinedTo[path]
	}
	return workingDir
}

// readEnvFile reads a file named in env_files. One that must lie in a folder, root, is opened through os.Root, so that
// neither ".." nor a symlink leads out of it, whoever may write there.
func readEnvFile(path, root string) (string, error) {
	file, err := openIn(root, path)
	if err != nil {
		if filepath.IsAbs(path) {
			return "", fmt.Errorf("%q: %w; give the path of a file of NAME=VALUE lines", path, withoutPath(err))
		}
		return "", fmt.Errorf("%q in working_dir %s: %w; a relative path must lie within working_dir, symlinks resolved; give an absolute path for a file elsewhere",
			path, root, withoutPath(err))
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxEnvFile+1))
	if err != nil {
		return "", fmt.Errorf("%q: %w; give the path of a file of NAME=VALUE lines", path, withoutPath(err))
	}
	if len(text) > maxEnvFile {
		return "", fmt.Errorf("%q is larger than %d bytes; give the path of a file of NAME=VALUE lines", path, maxEnvFile)
	}
	return string(text), nil
}

// openNow keeps open from waiting for somebody who writes into a named pipe. Windows, where it means nothing, has none.
const openNow = os.O_RDONLY | syscall.O_NONBLOCK

// openIn opens a file that must lie in the folder dir, symlinks resolved; "" for anywhere. A relative path begins there.
// Nothing else is opened, since reading it may never end; but an administrator may name a device, such as /dev/null.
func openIn(dir, path string) (*os.File, error) {
	file, err := openAny(dir, path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() && (dir != "" || info.Mode()&fs.ModeCharDevice == 0) {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// openAny opens what openIn looks at, at once.
func openAny(dir, path string) (*os.File, error) {
	if dir == "" {
		return os.OpenFile(path, openNow, 0)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	if filepath.IsAbs(path) {
		if path, err = filepath.Rel(dir, path); err != nil {
			return nil, err
		}
	}
	return root.OpenFile(path, openNow, 0)
}

// checkEnv refuses what cannot be a variable, what Caddy Snake itself decides, and what makes the dynamic loader run
// other code than the interpreter's.
func checkEnv(name, value string) error {
	if !dotenv.IsName(name) {
		return fmt.Errorf("%q is not the name of a variable; use letters, digits and _, with no digit first", name)
	}
	upper := strings.ToUpper(name) // Windows does not tell cases apart
	for _, prefix := range []string{"CADDYSNAKE_", "LD_", "DYLD_"} {
		if strings.HasPrefix(upper, prefix) {
			return fmt.Errorf("%s is refused, as is every name that begins with CADDYSNAKE_, LD_ or DYLD_; remove it, or set it for Caddy itself", name)
		}
	}
	if upper == "PYTHONUNBUFFERED" {
		return fmt.Errorf("%s is refused, Caddy Snake sets it so that output reaches the log at once; remove it", name)
	}
	if strings.ContainsRune(value, 0) {
		return fmt.Errorf("the value of %s contains a NUL byte, which no environment can hold; remove it", name)
	}
	return nil
}
