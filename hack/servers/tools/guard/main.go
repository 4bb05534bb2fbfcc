// Guard runs a command and ends it when its own standard input reaches end of file.
//
// A parent keeps the write end of a pipe open as long as it lives; however it dies, kill -9 included, the kernel closes
// the pipe and the command goes too. The command first gets SIGTERM and, after the grace period, SIGKILL, together with
// everything else in its process group. Guard exits with the command's code, or 128 plus the signal that ended it.
//
//	guard [-grace 5s] command [argument...]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	grace := flag.Duration("grace", 5*time.Second, "time between SIGTERM and SIGKILL")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "guard: no command given")
		os.Exit(2)
	}
	// The parent-death signal of Linux is tied to the thread that started the child.
	runtime.LockOSThread()
	code, err := run(flag.Args(), *grace)
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
	}
	os.Exit(code)
}

func run(args []string, grace time.Duration) (int, error) {
	// Subscribed before the child exists: a signal in between must not leave it behind.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	command := exec.Command(args[0], args[1:]...)
	command.Stdout = os.Stdout
	command.Stderr = os.Stderr
	command.SysProcAttr = childAttributes()
	if err := command.Start(); err != nil {
		return 127, err
	}

	eof := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(eof)
	}()
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()

	select {
	case err := <-done:
		return exitCode(err)
	case <-eof:
	case <-signals:
	}
	return stop(command.Process.Pid, done, grace)
}

// stop ends the child's process group, politely at first.
func stop(pid int, done <-chan error, grace time.Duration) (int, error) {
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	select {
	case err := <-done:
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		return exitCode(err)
	case <-time.After(grace):
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	return exitCode(<-done)
}

func exitCode(err error) (int, error) {
	if err == nil {
		return 0, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 1, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
