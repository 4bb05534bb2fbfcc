//go:build !linux

package main

import "syscall"

// childAttributes puts the child into a process group of its own. There is no parent-death signal here: a guard killed
// with SIGKILL leaves its child behind.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
