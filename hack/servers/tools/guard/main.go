// Guard runs a command and ends it when its own standard input reaches end of file.
//
// A parent keeps the write end of a pipe open as long as it lives; however it dies, kill -9 included, the kernel closes
// the pipe and the command goes too. The command first gets SIGTERM and, after the grace period, SIGKILL, together with
// everything else in its process group. Guard exits with the command's code, or 128 plus the signal that ended it.
//
//	guard [-grace 5s] [-remove DIR] command [argument...]
//
// With -remove, the folder goes after a command that ended because of end of file: nobody else is left to do it when the
// parent was killed. A parent that wants to go on writes one byte to standard input instead: the folder stays, and the
// command ends in the same way, or at once by SIGKILL if the byte is 'k'.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	grace := flag.Duration("grace", 5*time.Second, "time between SIGTERM and SIGKILL")
	remove := flag.String("remove", "", "folder to delete after the command has ended")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "guard: no command given")
		os.Exit(2)
	}
	// The parent-death signal of Linux is tied to the thread that started the child.
	runtime.LockOSThread()
	code, abandoned, err := run(flag.Args(), *grace)
	if abandoned && *remove != "" {
		_ = os.RemoveAll(*remove)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
	}
	os.Exit(code)
}

// run also says whether the command ended because nobody is left who wants it.
func run(args []string, grace time.Duration) (code int, abandoned bool, err error) {
	// Subscribed before the child exists: a signal in between must not leave it behind.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	command := exec.Command(args[0], args[1:]...)
	command.Stdout = os.Stdout
	command.Stderr = os.Stderr
	command.SysProcAttr = childAttributes()
	if err := command.Start(); err != nil {
		return 127, false, err
	}

	input := make(chan string, 1)
	go func() {
		order := make([]byte, 1)
		count, _ := os.Stdin.Read(order)
		input <- string(order[:count])
	}()
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()

	select {
	case err := <-done:
		code, err = exitCode(err)
		return code, false, err
	case order := <-input:
		abandoned = order == ""
		if order == "k" {
			grace = 0
		}
	case <-signals:
	}
	code, err = stop(command.Process.Pid, done, grace)
	return code, abandoned, err
}

// stop ends the child's process group, politely at first if there is a grace period.
func stop(pid int, done <-chan error, grace time.Duration) (int, error) {
	if grace > 0 {
		_ = syscall.Kill(-pid, syscall.SIGTERM)
		select {
		case err := <-done:
			_ = syscall.Kill(-pid, syscall.SIGKILL)
			return exitCode(err)
		case <-time.After(grace):
		}
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
