// Package dotenv parses env files.
//
//	# a comment
//	NAME=value                   # up to the line's end, or a # after white space; trimmed
//	export NAME=value            # export is ignored
//	NAME='$literal \n'           # up to the next single quote, nothing is special
//	NAME="two\nlines \"quoted\"" # \n \r \t \" \\ \$ are escapes; other backslashes stay
//	NAME="two
//	lines"                       # a quoted value may span lines
//
// There is no expansion: $NAME and ${NAME} stay as they are. A name consists of letters, digits and _, with no digit first.
// Lines end in LF or CRLF, and a byte order mark at the beginning is ignored. Whatever else a line holds is an error.
package dotenv

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Assignment is one NAME=VALUE of a file.
type Assignment struct {
	Name, Value string
	Line        int // where it begins, from 1
}

var (
	errNoEquals = errors.New("there is no =; write NAME=VALUE")
	errName     = errors.New("what is before = is not a name; use letters, digits and _, with no digit first")
)

var name = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// IsName reports whether s can be the name of a variable.
func IsName(s string) bool { return name.MatchString(s) }

// Parse returns the assignments in the text of an env file in their order. Errors begin with "file:line: ", and quote
// nothing of the text, which may hold secrets.
func Parse(file, text string) ([]Assignment, error) {
	var assignments []Assignment
	rest := strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")
	for line := 1; rest != ""; {
		name, value, next, err := parseLine(rest)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, line, err)
		}
		if name != "" {
			assignments = append(assignments, Assignment{name, value, line})
		}
		line += strings.Count(rest[:len(rest)-len(next)], "\n")
		rest = next
	}
	return assignments, nil
}

// blank is the white space within a line.
const blank = " \t\r"

// parseLine parses the assignment at the beginning of text and returns what follows its line end. The name is empty for a
// blank line or a comment.
func parseLine(text string) (name, value, rest string, err error) {
	line, rest, _ := strings.Cut(text, "\n")
	if entry := strings.Trim(line, blank); entry == "" || entry[0] == '#' {
		return "", "", rest, nil
	}
	before, _, found := strings.Cut(line, "=")
	if !found {
		return "", "", "", errNoEquals
	}
	name = strings.Trim(before, blank)
	if after, ok := strings.CutPrefix(name, "export"); ok && strings.Trim(after, blank) != after {
		name = strings.Trim(after, blank)
	}
	if !IsName(name) {
		return "", "", "", errName
	}
	value, rest, err = parseValue(text[len(before)+1:])
	return name, value, rest, err
}

// parseValue parses the value that text begins with and returns what follows its line end.
func parseValue(text string) (value, rest string, err error) {
	trimmed := strings.TrimLeft(text, blank)
	if !strings.HasPrefix(trimmed, `"`) && !strings.HasPrefix(trimmed, "'") {
		value, rest, _ = strings.Cut(text, "\n")
		return strings.Trim(withoutComment(value), blank), rest, nil
	}
	quote := trimmed[0]
	value, rest, closed := cutQuoted(trimmed[1:], quote)
	if !closed {
		return "", "", fmt.Errorf("the value that begins here has no closing %c", quote)
	}
	after, rest, _ := strings.Cut(rest, "\n")
	if after = strings.Trim(after, blank); after != "" && after[0] != '#' {
		return "", "", fmt.Errorf("the value goes on after the closing %c; put all of it in quotes", quote)
	}
	return value, rest, nil
}

// withoutComment cuts value at the first # after white space.
func withoutComment(value string) string {
	for i := 1; i < len(value); i++ {
		if value[i] == '#' && strings.IndexByte(blank, value[i-1]) >= 0 {
			return value[:i]
		}
	}
	return value
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
