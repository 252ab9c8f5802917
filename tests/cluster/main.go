// Command cluster is a Kubernetes control plane with two nodes for tests: one program, started once per part.
//
// `cluster` starts and watches over all of it; README.md says how. The nodes run in it: each container whose image is named
// with --image is a real process in namespaces of its own (nodes.go, kubelet.go, pod.go, container.go). The other parts are
// etcd and Kubernetes itself.
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// The parts of this program, by first argument.
var parts = map[string]func(arguments []string) int{
	"cluster":                 runCluster,
	"etcd":                    runEtcd,
	"kube-apiserver":          upstream(apiserver.NewAPIServerCommand),
	"kube-controller-manager": upstream(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          upstream(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
}

// upstream runs a command of Kubernetes as its own main function does.
func upstream(command func() *cobra.Command) func([]string) int {
	return func([]string) int { return cli.Run(command()) }
}

func main() {
	known := strings.Join(slices.Sorted(maps.Keys(parts)), ", ")
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "name the part to run: "+known)
		os.Exit(2)
	}
	part, ok := parts[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "no part is named %q: there are %s\n", os.Args[1], known)
		os.Exit(2)
	}
	// The part sees itself as argument 0, as its own program would.
	os.Args = os.Args[1:]
	os.Exit(part(os.Args[1:]))
}
