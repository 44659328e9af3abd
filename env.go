package caddysnake

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxEnvFile bounds an env file, in bytes: whoever names a device or a log by mistake gets an error, not a full memory.
const maxEnvFile = 1 << 20

// readEnv returns what env_files and env_vars add to the environment of the workers, as sorted NAME=VALUE strings.
func (c *Config) readEnv(workingDir string) ([]string, error) {
	env := make(map[string]string)
	for _, file := range c.EnvFiles {
		text, err := readEnvFile(file, workingDir)
		if err != nil {
			return nil, wrong("env_file", "%w", err)
		}
		vars, err := parseEnv(file, text)
		if err != nil {
			return nil, wrong("env_file", "%w", err)
		}
		maps.Copy(env, vars)
	}
	maps.Copy(env, c.EnvVars)

	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

// readEnvFile reads a file named in env_files. A relative one is opened through os.Root, so that neither ".." nor a
// symlink leads out of workingDir, whoever may write there.
func readEnvFile(path, workingDir string) (string, error) {
	file, err := openEnvFile(path, workingDir)
	if err != nil {
		if filepath.IsAbs(path) {
			return "", fmt.Errorf("%q: %w; give the path of a file of NAME=VALUE lines", path, withoutPath(err))
		}
		return "", fmt.Errorf("%q in working_dir %s: %w; a relative path must lie within working_dir, symlinks resolved; give an absolute path for a file elsewhere",
			path, workingDir, withoutPath(err))
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

func openEnvFile(path, workingDir string) (*os.File, error) {
	if filepath.IsAbs(path) {
		return os.Open(path)
	}
	root, err := os.OpenRoot(workingDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(path)
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// checkEnv refuses what cannot be a variable, what Caddy Snake itself decides, and what makes the dynamic loader run
// other code than the interpreter's.
func checkEnv(name, value string) error {
	if !envName.MatchString(name) {
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

// parseEnv parses the text of an env file; file is its name in errors, which begin with "file:line: " and quote nothing
// that may be secret.
//
//	# a comment
//	NAME=value                  # up to the line's end or a # after a space; trimmed
//	export NAME=value           # export is ignored
//	NAME='$literal \n'          # up to the next single quote, nothing is special
//	NAME="two\nlines \"quoted\"" # \n \r \t \" \\ \$ are escapes; other backslashes stay
//	NAME="two
//	lines"                      # a quoted value may span lines
//
// There is no expansion: $NAME and ${NAME} stay as they are. The last line of a name wins. Lines end in LF or CRLF, and
// a byte order mark at the beginning is ignored.
func parseEnv(file, text string) (map[string]string, error) {
	env := make(map[string]string)
	rest := strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")
	for line := 1; rest != ""; {
		name, value, next, err := parseEnvLine(rest)
		if err == nil && name != "" {
			err = checkEnv(name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, line, err)
		}
		if name != "" {
			env[name] = value
		}
		line += strings.Count(rest[:len(rest)-len(next)], "\n")
		rest = next
	}
	return env, nil
}

// envBlank is the white space within a line.
const envBlank = " \t\r"

// parseEnvLine parses the assignment at the beginning of text and returns what follows its line end. The name is empty
// for a blank line or a comment.
func parseEnvLine(text string) (name, value, rest string, err error) {
	line, rest, _ := strings.Cut(text, "\n")
	entry := strings.Trim(line, envBlank)
	if entry == "" || entry[0] == '#' {
		return "", "", rest, nil
	}
	name, _, found := strings.Cut(line, "=")
	if !found {
		return "", "", "", errors.New("there is no =; write NAME=VALUE")
	}
	value, rest, err = parseEnvValue(text[len(name)+1:])
	name = strings.Trim(name, envBlank)
	if after, ok := strings.CutPrefix(name, "export"); ok && strings.Trim(after, envBlank) != after {
		name = strings.Trim(after, envBlank)
	}
	if !envName.MatchString(name) {
		return "", "", "", errors.New("what is before = is not a name; use letters, digits and _, with no digit first")
	}
	return name, value, rest, err
}

// parseEnvValue parses the value that text begins with and returns what follows its line end.
func parseEnvValue(text string) (value, rest string, err error) {
	trimmed := strings.TrimLeft(text, envBlank)
	if !strings.HasPrefix(trimmed, `"`) && !strings.HasPrefix(trimmed, "'") {
		value, rest, _ = strings.Cut(text, "\n")
		for i := 1; i < len(value); i++ {
			if value[i] == '#' && strings.IndexByte(envBlank, value[i-1]) >= 0 {
				value = value[:i]
			}
		}
		return strings.Trim(value, envBlank), rest, nil
	}
	quote := trimmed[0]
	value, rest, closed := cutQuoted(trimmed[1:], quote)
	if !closed {
		return "", "", fmt.Errorf("the value that begins here has no closing %c", quote)
	}
	after, rest, _ := strings.Cut(rest, "\n")
	if after = strings.Trim(after, envBlank); after != "" && after[0] != '#' {
		return "", "", fmt.Errorf("the value goes on after the closing %c; put all of it in quotes", quote)
	}
	return value, rest, nil
}

// cutQuoted returns the value up to the closing quote, with escapes undone, and what follows that quote.
func cutQuoted(text string, quote byte) (value, rest string, closed bool) {
	if quote == '\'' {
		return strings.Cut(text, "'")
	}
	var unescaped strings.Builder
	for i := 0; i < len(text); i++ {
		char := text[i]
		if char == quote {
			return unescaped.String(), text[i+1:], true
		}
		if char == '\\' && i+1 < len(text) {
			if escaped := strings.IndexByte(`nrt"\$`, text[i+1]); escaped >= 0 {
				char = "\n\r\t\"\\$"[escaped]
				i++
			}
		}
		unescaped.WriteByte(char)
	}
	return "", "", false
}
