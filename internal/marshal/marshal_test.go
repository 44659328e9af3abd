package marshal

import (
	"errors"
	"math"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	tests := map[string]struct {
		data []byte
		want any
	}{
		"none":           {AppendNone(nil), nil},
		"true":           {AppendBool(nil, true), true},
		"int":            {AppendInt(nil, -5), int64(-5)},
		"float":          {AppendFloat(nil, 1.5), 1.5},
		"bytes":          {AppendBytes(nil, "a\x00\xff"), []byte("a\x00\xff")},
		"ascii":          {AppendString(nil, "abc"), "abc"},
		"long ascii":     {AppendString(nil, strings.Repeat("x", 300)), strings.Repeat("x", 300)},
		"unicode":        {AppendString(nil, "käse"), "käse"},
		"invalid utf-8":  {AppendString(nil, "a\xffb"), "a\uFFFDb"},
		"latin-1":        {AppendLatin1(nil, "a\xe4b"), "aäb"},
		"key":            {AppendKey(nil, "PATH_INFO"), "PATH_INFO"},
		"tuple":          {AppendInt(AppendInt(AppendTuple(nil, 2), 1), 2), []any{int64(1), int64(2)}},
		"list":           {AppendNone(AppendList(nil, 1)), []any{nil}},
		"dict":           {AppendDictEnd(AppendInt(AppendKey(AppendDict(nil), "a"), 1)), map[string]any{"a": int64(1)}},
		"dict in a list": {AppendDictEnd(AppendDict(AppendList(nil, 1))), []any{map[string]any{}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(test.data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %#v, want %#v", got, test.want)
			}
		})
	}
}

// TestPythonReads has a real Python read what this package writes.
func TestPythonReads(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("this test needs python3 on PATH")
	}
	b := AppendTuple(nil, 14)
	b = AppendNone(b)
	b = AppendBool(b, true)
	b = AppendBool(b, false)
	for _, v := range []int64{0, -1, math.MaxInt32, math.MinInt32, math.MaxInt32 + 1, math.MinInt64, math.MaxInt64} {
		b = AppendInt(b, v)
	}
	b = AppendFloat(b, 0.1)
	b = AppendBytes(b, "\x00\xff")
	b = AppendLatin1(b, "k\xe4se")
	b = AppendDictEnd(AppendString(AppendKey(AppendDict(b), "key"), "a\xffb"))
	const want = "(None, True, False, 0, -1, 2147483647, -2147483648, 2147483648, -9223372036854775808, " +
		"9223372036854775807, 0.1, b'\\x00\\xff', 'k\\xe4se', {'key': 'a\\ufffdb'})\n"
	cmd := exec.Command(python, "-c", "import marshal, sys; print(ascii(marshal.loads(sys.stdin.buffer.read())))")
	cmd.Stdin = strings.NewReader(string(b))
	got, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if string(got) != want {
		t.Errorf("Python read\n%swant\n%s", got, want)
	}
}

// TestPythonWrites reads what a real Python writes, in the form that a worker uses.
func TestPythonWrites(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("this test needs python3 on PATH")
	}
	const code = `import marshal, sys
sys.stdout.buffer.write(marshal.dumps((200, [(b"a", b"\xff"), ("\xe4", "x" * 300)], None, {"k": 1.5, "t": True}), 2))`
	data, err := exec.Command(python, "-c", code).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	want := []any{
		int64(200),
		[]any{[]any{[]byte("a"), []byte("\xff")}, []any{"ä", strings.Repeat("x", 300)}},
		nil,
		map[string]any{"k": 1.5, "t": true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestMalformed(t *testing.T) {
	tests := map[string]string{
		"empty":                      "",
		"unknown type":               "c",
		"truncated int":              "i\x00",
		"truncated bytes":            "s\x05\x00\x00\x00ab",
		"huge length":                "s\xff\xff\xff\xff",
		"huge list":                  "[\xff\xff\xff\x7f",
		"negative list":              "[\xff\xff\xff\xff",
		"dict without end":           "{",
		"dict with an int for a key": "{i\x00\x00\x00\x00N0",
		"too deep":                   strings.Repeat(")\x01", 100) + "N",
		"more than one value":        "NN",
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			if v, err := Decode([]byte(data)); !errors.Is(err, ErrFormat) {
				t.Errorf("got %#v and error %v, want ErrFormat", v, err)
			}
		})
	}
}

// FuzzDecode looks for panics, and for memory out of proportion to the input.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("(\x02\x00\x00\x00i\xc8\x00\x00\x00[\x00\x00\x00\x00"))
	f.Add([]byte("{z\x01aN0"))
	f.Add([]byte(")\x02s\x01\x00\x00\x00au\x02\x00\x00\x00\xc3\xa4"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Decode(data)
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("error %v is no ErrFormat", err)
		}
		if err == nil && size(v) > 64*len(data) {
			t.Errorf("%d bytes became %d", len(data), size(v))
		}
	})
}

// size is roughly what v takes in memory.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return 16 + len(v)
	case []byte:
		return 24 + len(v)
	case []any:
		n := 24
		for _, item := range v {
			n += 16 + size(item)
		}
		return n
	case map[string]any:
		n := 48
		for key, item := range v {
			n += 32 + len(key) + size(item)
		}
		return n
	default:
		return 8
	}
}
