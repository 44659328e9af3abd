package caddysnake

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// pidMax is the smallest number of process ids that Linux allows a pid namespace.
const pidMax = "360"

// What a worker leaves behind is killed by its group's number, which must not be another's by then.
func TestThreat19AWorkersNumberIsTakenUntilItsGroupIsKilled(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "exit 3")
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitExit(cmd.Process.Pid)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil || !bytes.Contains(status, []byte(") Z ")) {
		t.Errorf("the process is not there as a zombie: %s, %v", status, err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("got %v, want exit status 3", err)
	}
}

// Threat 19: the wrong process is killed, because another one has its number by now. Here there are so few numbers that each
// is used again at once. Who dies of a signal was killed in another one's place.
func TestThreat19NoOtherProcessIsKilled(t *testing.T) {
	if os.Getenv("CADDYSNAKE_PID_NAMESPACE") == "" {
		inPidNamespace(t)
		return
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte(pidMax), 0); err != nil {
		t.Fatal(err)
	}
	cycles := int64(1000)
	if os.Getenv("CADDYSNAKE_SIEGE") == "1" {
		cycles = 10_000
	}
	var begun atomic.Int64
	var starters sync.WaitGroup
	for range 32 {
		starters.Go(func() {
			var ended []*process
			for begun.Add(1) <= cycles {
				p := &process{cmd: exec.Command("/bin/sh", "-c", "exit 3"), exited: make(chan struct{})}
				p.cmd.SysProcAttr = childAttributes()
				if err := p.start(zap.NewNop()); err != nil {
					t.Error(err)
					return
				}
				<-p.Exited()
				// Whoever may kill a worker does not always know yet that it has ended.
				if ended = append(ended, p); len(ended) > 20 {
					ended = ended[1:]
				}
				for _, gone := range ended {
					gone.Kill()
				}
				if reason := p.Reason(); reason != "exit status 3" {
					t.Errorf("a process ended with %q", reason)
				}
			}
		})
	}
	starters.Wait()
}

// inPidNamespace runs the test again as the first process of a namespace of its own. Only root may make one, and before Linux
// 6.14 all namespaces share pid_max.
func inPidNamespace(t *testing.T) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || !atLeast(name.Release[:], 6, 14) {
		t.Skip("needs root and Linux 6.14, which has a pid_max for each pid namespace")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "CADDYSNAKE_PID_NAMESPACE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	output, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(output, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, output)
	}
}

// atLeast tells whether a kernel's release, "6.14.0-x", is this version or a later one.
func atLeast(release []byte, major, minor int) bool {
	numbers := [2]int{}
	field := 0
	for _, c := range release {
		if c == '.' {
			if field++; field == len(numbers) {
				break
			}
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		numbers[field] = numbers[field]*10 + int(c-'0')
	}
	return numbers[0] > major || numbers[0] == major && numbers[1] >= minor
}
