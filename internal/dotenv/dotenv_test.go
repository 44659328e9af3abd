package dotenv

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Assignment
	}{
		{"empty", "", nil},
		{"comments and blank lines", "# A=1\n\n  \t\n   # B=2", nil},
		{"plain", "A=1\nB=two words\n", []Assignment{{"A", "1", 1}, {"B", "two words", 2}}},
		{"blanks around", "  A  =  1  \n\tB=\t2\t", []Assignment{{"A", "1", 1}, {"B", "2", 2}}},
		{"empty values", "A=\nB=''\nC=\"\"\nD=   # nothing", []Assignment{{"A", "", 1}, {"B", "", 2}, {"C", "", 3}, {"D", "", 4}}},
		{"export", "export A=1\nexport\tB='2'\nexport=3\nexported=4",
			[]Assignment{{"A", "1", 1}, {"B", "2", 2}, {"export", "3", 3}, {"exported", "4", 4}}},
		{"trailing comment", "A=1 # one\nB=a#b # c\nC=#d\nD='#' # d\nE=\"#\"#e",
			[]Assignment{{"A", "1", 1}, {"B", "a#b", 2}, {"C", "#d", 3}, {"D", "#", 4}, {"E", "#", 5}}},
		{"single quotes are literal", `A='\n $B "c" \'`, []Assignment{{"A", `\n $B "c" \`, 1}}},
		{"double quotes have escapes", `A="a\nb\tc\rd \"e\" \\ \$f \x \'"`,
			[]Assignment{{"A", "a\nb\tc\rd \"e\" \\ $f \\x \\'", 1}}},
		{"quotes inside a plain value", `A=it's "so"`, []Assignment{{"A", `it's "so"`, 1}}},
		{"backslashes in a plain value", `A=C:\new\table`, []Assignment{{"A", `C:\new\table`, 1}}},
		{"no expansion", "A=1\nB=$A ${A} $(id) `id`", []Assignment{{"A", "1", 1}, {"B", "$A ${A} $(id) `id`", 2}}},
		{"values over lines", "A=\"1\n 2 # 2\n\"\nB='\n'\nC=3", []Assignment{{"A", "1\n 2 # 2\n", 1}, {"B", "\n", 4}, {"C", "3", 6}}},
		{"Windows line ends and byte order mark", "\ufeffA=1\r\nB=\"2\r\n3\"\r\nC=4\r",
			[]Assignment{{"A", "1", 1}, {"B", "2\n3", 2}, {"C", "4", 4}}},
		{"a name twice", "A=1\nA=2", []Assignment{{"A", "1", 1}, {"A", "2", 2}}},
		{"equals signs in values", "A=b=c\nB==", []Assignment{{"A", "b=c", 1}, {"B", "=", 2}}},
		{"bytes that are not UTF-8", "A=\xff\xfe", []Assignment{{"A", "\xff\xfe", 1}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse(".env", test.text)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestSyntaxErrors(t *testing.T) {
	const name = "what is before = is not a name; use letters, digits and _, with no digit first"
	tests := []struct{ name, text, want string }{
		{"no equals sign", "A=1\nsecret", ".env:2: there is no =; write NAME=VALUE"},
		{"no name", "=1", ".env:1: " + name},
		{"a digit first", "\n\n1A=1", ".env:3: " + name},
		{"a dash", "A-B=1", ".env:1: " + name},
		{"a quoted name", `"A"=1`, ".env:1: " + name},
		{"unclosed quote", "A=1\nB=\"2\nC=3\n", `.env:2: the value that begins here has no closing "`},
		{"unclosed by an escape", `A="\"`, `.env:1: the value that begins here has no closing "`},
		{"text after a quote", "A='it's'", ".env:1: the value goes on after the closing '; put all of it in quotes"},
		{"after a value over lines", "A='1\n2\n3'\nB", ".env:4: there is no =; write NAME=VALUE"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, err := Parse(".env", test.text); err == nil || err.Error() != test.want {
				t.Errorf("got %+v, %v, want %s", got, err, test.want)
			}
		})
	}
}

// Whatever is read from a file survives being written and read again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"A=1 # one\nexport B='2'\n", "A=\"1\\n\\\"\n\"#\r\nB=\\", "\ufeff# x\nA==", "A='", "=", "A=\x00", "export =1", "A=1\nA=2\n",
	} {
		f.Add(seed)
	}
	quote := strings.NewReplacer("\\", `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`)
	f.Fuzz(func(t *testing.T, text string) {
		assignments, err := Parse("f", text)
		if err != nil {
			var line int
			if _, scanErr := fmt.Sscanf(err.Error(), "f:%d: ", &line); scanErr != nil || line < 1 || line > 1+strings.Count(text, "\n") {
				t.Fatalf("no line in %q", err)
			}
			return
		}
		var written strings.Builder
		for i := range assignments {
			if !IsName(assignments[i].Name) {
				t.Fatalf("%q is not a name", assignments[i].Name)
			}
			assignments[i].Line = i + 1
			fmt.Fprintf(&written, "%s=\"%s\"\n", assignments[i].Name, quote.Replace(assignments[i].Value))
		}
		again, err := Parse("f", written.String())
		if err != nil || !slices.Equal(assignments, again) {
			t.Fatalf("%+v became %+v, %v", assignments, again, err)
		}
	})
}
