// Package spec says what one container is, from the node to run-container.
package spec

// NetworkDescriptor is where run-container finds the pod's network namespace.
const NetworkDescriptor = 3

// A Container is everything that run-container needs to know.
type Container struct {
	// Root is an empty folder for the container's file system.
	Root string
	// Program is the host's file that plays the image, ImageName its name in the container's root folder.
	Program   string
	ImageName string

	Command          []string
	Environment      []string
	WorkingDirectory string
	Hostname         string
	// Network: the pod has a network namespace of its own.
	Network bool

	User     int
	Group    int
	Groups   []int
	ReadOnly bool
	Mounts   []Mount
	// Files to write into the container's file system, by path.
	Files map[string]string
}

// A Mount shows a folder or file of the host in the container.
type Mount struct {
	Source   string
	Target   string
	ReadOnly bool
}
