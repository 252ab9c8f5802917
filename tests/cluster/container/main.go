// Command run-container turns into the process of one container: it enters the pod's network namespace, builds the container's
// file system, gives up every right and executes the program. It is small on its own because it starts with every container.
//
// It is started as the first process of fresh mount, process, host name and IPC namespaces, with the specification as a JSON file
// and, for a pod with its own network, that namespace as file descriptor 3.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
	"weir.internal/tests/cluster/container/spec"
)

// The exit code of a container that could not be started, as container runtimes have it.
const startFailed = 128

func init() {
	// Namespaces and rights belong to a thread: all of it happens on the first one, which executes the program.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "run-container wants one argument: the file with the specification")
		os.Exit(startFailed)
	}
	fmt.Fprintln(os.Stderr, "run-container:", run(os.Args[1]))
	os.Exit(startFailed)
}

// run does not return when all goes well.
func run(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var container spec.Container
	if err := json.Unmarshal(text, &container); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if container.Network {
		if err := unix.Setns(spec.NetworkDescriptor, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the pod's network: %w", err)
		}
		_ = unix.Close(spec.NetworkDescriptor)
	}
	if err := unix.Sethostname([]byte(container.Hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := enterRoot(&container); err != nil {
		return err
	}
	directory := container.WorkingDirectory
	if directory == "" {
		directory = "/"
	}
	if err := os.Chdir(directory); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	program, err := find(container.Command[0], container.Environment)
	if err != nil {
		return err
	}
	if err := dropRights(container.User, container.Group, container.Groups); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", program, syscall.Exec(program, container.Command, container.Environment))
}

// dropRights becomes the user, with no capability and no way to any.
func dropRights(user, group int, groups []int) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("groups %v: %w", groups, err)
	}
	if err := syscall.Setresgid(group, group, group); err != nil {
		return fmt.Errorf("group %d: %w", group, err)
	}
	if err := syscall.Setresuid(user, user, user); err != nil {
		return fmt.Errorf("user %d: %w", user, err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	// The change of user took it away: when the node ends, so does the container.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("signal on the node's end: %w", err)
	}
	return nil
}
