package caddysnake

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLabels(t *testing.T) {
	for _, label := range []string{"a", "A1", "0", "xn--bcher-kva", "a_b", "a-", strings.Repeat("x", 63)} {
		if !isLabel(label) {
			t.Errorf("%q is refused", label)
		}
	}
	for _, label := range []string{
		"", ".", "..", "-", "_", "-a", "_a", "a.b", "a/b", `a\b`, "a\x00", "a\n", "a b", "a:b", "a%2f", "é", "a\xff", "~", "$a",
		strings.Repeat("x", 64),
	} {
		if isLabel(label) {
			t.Errorf("%q is accepted", label)
		}
	}
}

func TestHostNames(t *testing.T) {
	for _, host := range []string{"a", "a.b", "www.example.com", strings.Repeat("a.", 126) + "a"} {
		if !isHostName(host) {
			t.Errorf("%q is refused", host)
		}
	}
	for _, host := range []string{"", ".", "..", ".a", "a.", "a..b", "a/.b", "a.b:80", "[::1]", strings.Repeat("a.", 127) + "a"} {
		if isHostName(host) {
			t.Errorf("%q is accepted", host)
		}
	}
}

// Whatever is accepted is one name in a path, and no special one.
func FuzzHostName(f *testing.F) {
	for _, seed := range []string{"a", "www.example.com", "..", "a/../b", "a\x00", ".git", "A-_9", "a..b", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !isLabel(text) && !isHostName(text) {
			return
		}
		path := filepath.Join("/root/dir", "before"+text+"after", text)
		if path != "/root/dir/before"+text+"after/"+text || strings.HasPrefix(text, ".") || strings.ContainsAny(text, "/\\\x00") {
			t.Errorf("%q leads to %q", text, path)
		}
	})
}

// aged waits until a change of a file's status leaves another time of change than those at path.
func aged(t *testing.T, paths ...string) {
	t.Helper()
	probe := filepath.Join(t.TempDir(), "probe")
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := os.WriteFile(probe, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		now, err := os.Lstat(probe)
		if err != nil {
			t.Fatal(err)
		}
		other := true
		for _, path := range paths {
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			other = other && changed(info, now)
		}
		if other {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("time does not go on")
		}
		_ = os.Remove(probe)
	}
}

func TestThreat22ASwapIsFoundOut(t *testing.T) {
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		do    func(t *testing.T, root string)
		moved bool
	}{
		{"nothing", func(*testing.T, string) {}, false},
		{"a new file in the folder", func(t *testing.T, root string) { writeFile(t, root+"/group/alice", "new", "") }, false},
		{"a new folder beside it", func(t *testing.T, root string) { writeFile(t, root+"/group", "new", "") }, false},
		{"a symlink to elsewhere", func(t *testing.T, root string) {
			move(t, root+"/group/alice", root+"/old")
			link(t, "/", root+"/group/alice")
		}, true},
		{"a symlink to elsewhere on the way", func(t *testing.T, root string) {
			outside := t.TempDir()
			if err := os.Mkdir(outside+"/alice", 0o700); err != nil {
				t.Fatal(err)
			}
			move(t, root+"/group", root+"/old")
			link(t, outside, root+"/group")
		}, true},
		{"another folder", func(t *testing.T, root string) {
			move(t, root+"/group/alice", root+"/old")
			move(t, root+"/group/bob", root+"/group/alice")
		}, true},
		{"a swap and back", func(t *testing.T, root string) {
			move(t, root+"/group/alice", root+"/old")
			link(t, "/", root+"/group/alice")
			if err := os.Remove(root + "/group/alice"); err != nil {
				t.Fatal(err)
			}
			move(t, root+"/old", root+"/group/alice")
		}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := testFolder(t)
			for _, name := range []string{"/group/alice", "/group/bob"} {
				if err := os.MkdirAll(root+name, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			chosen := []confined{{Root: root, Path: root + "/group/alice"}}
			seen, err := sight(chosen)
			if err != nil {
				t.Fatal(err)
			}
			aged(t, root, root+"/group", root+"/group/alice")
			test.do(t, root)
			if err := seen.check(chosen); errors.Is(err, errMoved) != test.moved || !test.moved && err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Somebody exchanges a folder for a symlink to another place and back, all the time. Whoever reads from it between two looks
// that agree has read what is in the folder.
func TestThreat22SwapRaces(t *testing.T) {
	root := testFolder(t)
	outside := testFolder(t)
	for dir, text := range map[string]string{root + "/alice": "inside", outside: "outside"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "main.py", text)
	}
	link(t, outside, root+"/link")
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			for _, step := range [][2]string{{"alice", "away"}, {"link", "alice"}, {"alice", "link"}, {"away", "alice"}} {
				if err := os.Rename(filepath.Join(root, step[0]), filepath.Join(root, step[1])); err != nil {
					stopped <- err
					return
				}
				time.Sleep(time.Duration(rand.IntN(12_000)) * time.Microsecond)
			}
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
		}
	}()
	agreed, foundOut := 0, 0
	for agreed+foundOut < 60 || agreed == 0 {
		path, err := below(root, root+"/alice")
		if err != nil {
			continue
		}
		chosen := []confined{{Root: root, Path: path}}
		seen, err := sight(chosen)
		if err != nil {
			continue
		}
		time.Sleep(time.Duration(5+rand.IntN(3)) * time.Millisecond) // no Python starts in less
		text, err := os.ReadFile(path + "/main.py")
		switch failed := seen.check(chosen); {
		case failed != nil:
			foundOut++
		case err == nil && string(text) != "inside":
			t.Fatalf("read %q", text)
		case err == nil:
			agreed++
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if foundOut == 0 {
		t.Error("nothing was found out")
	}
}
