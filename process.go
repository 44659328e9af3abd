//go:build !windows

package caddysnake

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// defaultWorkersRuntime is where workers run when nothing is set.
const defaultWorkersRuntime = runtimeProcess

// noProcesses says why workers cannot be processes here, "" if they can. Tests change it.
var noProcesses = ""

// socketBuffer is how much of what one side sent may wait for the other to read, in bytes.
const socketBuffer = 512 << 10

// process is a worker's interpreter in a child process.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	files  *descriptors // the worker's Conn closes it
	asked  wire.Socket  // Caddy's end of the monitor's socketpair, which the worker closes; nil: there is none
	output output

	mu      sync.Mutex
	waitErr error // what Wait returned; guarded by mu
}

// The worker's ends of its socketpairs, as the descriptors that it inherits.
const (
	socketFD      = 3
	descriptorsFD = 4
	monitorFD     = 5
)

// launchProcess starts an interpreter with one end of two socketpairs, one for frames and one for descriptors, and of a
// third one for its monitor if requests are bounded in time. It returns the other end of the first. Nothing else of
// Caddy's is inherited; when Caddy goes away in whatever manner, the worker sees the end of its connection.
func launchProcess(s settings, _ int, logger *zap.Logger) (interpreter, wire.Socket, error) {
	dir, err := unpackedPackage()
	if err != nil {
		return nil, nil, fmt.Errorf("unpacking the worker package: %w", err)
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = theirs.Close() }()
	files, theirFiles, err := newDescriptors()
	if err != nil {
		_ = ours.Close()
		return nil, nil, err
	}
	defer func() { _ = theirFiles.Close() }()
	asked, theirMonitor, err := newMonitorSocket(s)
	if err != nil {
		_ = ours.Close()
		_ = files.Close()
		return nil, nil, err
	}

	cmd := exec.Command(s.Python, dir, strconv.Itoa(socketFD), s.Runtime, s.App)
	cmd.Dir = s.WorkingDir
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Env = append(cmd.Env, "PYTHONUNBUFFERED=1")
	cmd.ExtraFiles = []*os.File{theirs, theirFiles} // become socketFD and descriptorsFD
	if theirMonitor != nil {
		defer func() { _ = theirMonitor.Close() }()
		cmd.ExtraFiles = append(cmd.ExtraFiles, theirMonitor) // becomes monitorFD
	}
	cmd.SysProcAttr = childAttributes()
	p := &process{cmd: cmd, exited: make(chan struct{}), files: files, asked: asked}
	if err := p.start(logger); err != nil {
		_ = ours.Close()
		_ = files.Close()
		if asked != nil {
			_ = asked.Close()
		}
		return nil, nil, err
	}
	return p, ours, nil
}

// start starts the process, with pipes for its output.
func (p *process) start(logger *zap.Logger) error {
	stdout, stdoutWriter, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe for a worker: %w", err)
	}
	defer func() { _ = stdoutWriter.Close() }()
	stderr, stderrWriter, err := os.Pipe()
	if err != nil {
		_ = stdout.Close()
		return fmt.Errorf("making a pipe for a worker: %w", err)
	}
	defer func() { _ = stderrWriter.Close() }()
	p.cmd.Stdout, p.cmd.Stderr = stdoutWriter, stderrWriter
	if err := spawn(p.cmd); err != nil {
		_ = stdout.Close()
		_ = stderr.Close()
		return fmt.Errorf("starting %s: %w", p.cmd.Args[0], err)
	}
	logger = logger.With(zap.Int("pid", p.cmd.Process.Pid))
	var readers sync.WaitGroup
	readers.Go(func() { p.output.log(stdout, logger, "stdout") })
	readers.Go(func() { p.output.log(stderr, logger, "stderr") })
	go p.wait([]*os.File{stdout, stderr}, &readers)
	return nil
}

// spawner starts processes on one thread that never ends: Linux takes the parent-death signal to mean the death of the
// thread that forked (golang/go#27505).
var spawner = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

func spawn(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}

// socketpair makes a connected pair: a socket for Caddy and a file for the worker.
func socketpair() (wire.Socket, *os.File, error) {
	// ForkLock keeps the pair out of a child that is forked before both are close-on-exec.
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a socketpair for a worker: %w", err)
	}
	for _, fd := range fds {
		// Fewer switches between the two when a body streams. The kernel grants what it allows; less is no error.
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, socketBuffer)
	}
	theirs := os.NewFile(uintptr(fds[1]), "caddy")
	ours, err := newSocket(fds[0])
	if err != nil {
		_ = syscall.Close(fds[0])
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// newMonitorSocket makes a monitor's socketpair, nil if requests are not bounded in time.
func newMonitorSocket(s settings) (wire.Socket, *os.File, error) {
	if s.RequestTimeout == 0 {
		return nil, nil, nil
	}
	return socketpair()
}

// wait reaps the process, then waits for the rest of its output.
func (p *process) wait(pipes []*os.File, readers *sync.WaitGroup) {
	awaitExit(p.cmd.Process.Pid)
	p.killGroup() // what it forked goes with it, and would hold the pipes open
	err := p.cmd.Wait()
	for _, pipe := range pipes { // a daemon may be in a group of its own
		_ = pipe.SetReadDeadline(time.Now().Add(outputGrace))
	}
	readers.Wait()
	for _, pipe := range pipes {
		_ = pipe.Close()
	}
	p.mu.Lock()
	p.waitErr = err
	p.mu.Unlock()
	close(p.exited)
}

// Exited implements interpreter.
func (p *process) Exited() <-chan struct{} { return p.exited }

// Pid implements interpreter.
func (p *process) Pid() int { return p.cmd.Process.Pid }

// Stopped implements interpreter.
func (p *process) Stopped() bool { return isStopped(p.cmd.Process.Pid) }

// Files implements interpreter.
func (p *process) Files() (wire.FileSource, int) { return p.files, descriptorsFD }

// Monitor implements interpreter.
func (p *process) Monitor() (wire.Socket, int) {
	if p.asked == nil {
		return nil, 0
	}
	return p.asked, monitorFD
}

// Reason implements interpreter.
func (p *process) Reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	reason := "exit status 0"
	var exit *exec.ExitError
	if errors.As(p.waitErr, &exit) {
		reason = exit.Error()
	} else if p.waitErr != nil {
		reason = p.waitErr.Error()
	}
	return p.output.explain(reason)
}

// Kill implements interpreter.
func (p *process) Kill() { _ = p.cmd.Process.Kill() }

// killGroup ends the processes that the worker left behind. The worker has exited but is not reaped, so its number, which is
// its group's, cannot be another's yet.
func (p *process) killGroup() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
