package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"weir.internal/tests/cluster/container/spec"
)

// What of the host every container sees, read-only: libraries and tools that a real image would bring.
var hostFolders = []string{"bin", "sbin", "lib", "lib32", "lib64", "usr", "nix", "etc/ssl", "etc/alternatives"}
var hostFiles = []string{"etc/ld.so.cache", "etc/nsswitch.conf", "etc/localtime", "etc/services", "etc/protocols", "etc/mime.types"}
var devices = []string{"null", "zero", "full", "random", "urandom"}

// enterRoot builds the container's file system on a memory file system and makes it the root of this mount namespace.
func enterRoot(container *spec.Container) error {
	root := container.Root
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=256m"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	if err := showHost(root); err != nil {
		return err
	}
	for _, folder := range []string{"tmp", "proc", "dev", "var/run", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	for _, device := range devices {
		if err := bind("/dev/"+device, filepath.Join(root, "dev", device), false); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for path, content := range container.Files {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := bind(container.Program, filepath.Join(root, container.ImageName), true); err != nil {
		return err
	}
	// Shorter paths first: a mount may lie within another.
	mounts := slices.SortedFunc(slices.Values(container.Mounts), func(a, b spec.Mount) int { return len(a.Target) - len(b.Target) })
	for _, mount := range mounts {
		if err := bind(mount.Source, filepath.Join(root, mount.Target), mount.ReadOnly); err != nil {
			return err
		}
	}
	if container.ReadOnly {
		flags := uintptr(unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
		if err := unix.Mount("tmpfs", root, "tmpfs", flags, "mode=755,size=256m"); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	// The old root lies over the new one until it is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return nil
}

func showHost(root string) error {
	for _, name := range slices.Concat(hostFolders, hostFiles) {
		source, target := "/"+name, filepath.Join(root, name)
		about, err := os.Lstat(source)
		if err != nil {
			continue // this host has none
		}
		if about.Mode()&os.ModeSymlink == 0 {
			if err := bind(source, target, true); err != nil {
				return err
			}
			continue
		}
		destination, err := os.Readlink(source)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(destination, target); err != nil {
			return err
		}
	}
	return nil
}

// bind shows the source at the target, which it makes when there is none.
func bind(source, target string, readOnly bool) error {
	about, err := os.Stat(source)
	if err != nil {
		return err
	}
	if about.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var file *os.File
		if file, err = os.OpenFile(target, os.O_CREATE, 0o644); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	if readOnly {
		if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", target, err)
		}
	}
	return nil
}

// find looks a program up as a shell would, in the container's PATH.
func find(program string, environment []string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	path := ""
	for _, variable := range environment {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			path = value
		}
	}
	for _, folder := range strings.Split(path, ":") {
		file := filepath.Join(folder, program)
		if about, err := os.Stat(file); err == nil && about.Mode().IsRegular() && about.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("no program %q in PATH (%s)", program, path)
}
