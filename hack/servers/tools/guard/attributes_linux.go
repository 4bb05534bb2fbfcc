package main

import "syscall"

// childAttributes puts the child into a process group of its own and has the kernel kill it should guard itself be
// killed with SIGKILL.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
