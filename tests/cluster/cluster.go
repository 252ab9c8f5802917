package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// A list is a flag that may be given several times.
type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// The options of a cluster.
type options struct {
	state        string
	crds         list
	images       list
	nodes        int
	scheduler    bool
	adoptNodes   bool
	hpaSync      string
	apiserverArg list
	managerArg   list
}

// A cluster is everything that runs.
type cluster struct {
	options     options
	network     *network
	credentials *credentials
	config      *rest.Config
	client      kubernetes.Interface
	components  []*component
	kubelet     *kubelet
}

// What the cluster says about itself once it is up: one line of JSON.
type ready struct {
	Kubeconfig            string            `json:"kubeconfig"`
	Server                string            `json:"server"`
	State                 string            `json:"state"`
	Pid                   int               `json:"pid"`
	ClientCACertificate   string            `json:"client_ca_certificate"`
	ClientCAKey           string            `json:"client_ca_key"`
	FrontProxyCertificate string            `json:"front_proxy_certificate"`
	FrontProxyKey         string            `json:"front_proxy_key"`
	FrontProxyCA          string            `json:"front_proxy_ca_certificate"`
	FrontProxyCAKey       string            `json:"front_proxy_ca_key"`
	Gateway               string            `json:"gateway"`
	Nodes                 map[string]string `json:"nodes"`
	StartSeconds          float64           `json:"start_seconds"`
}

// runCluster runs a cluster until its standard input ends, SIGTERM or SIGINT comes, or it is told to quit.
func runCluster(arguments []string) int {
	var options options
	flags := flag.NewFlagSet("cluster", flag.ExitOnError)
	flags.StringVar(&options.state, "state", "", "folder for everything that is written; it is removed at the end (default: a new temporary one)")
	flags.Var(&options.crds, "crds", "folder of CustomResourceDefinitions to create (repeatable)")
	flags.Var(&options.images, "image", "NAME=PROGRAM: containers whose image has NAME as last component run this program (repeatable)")
	flags.IntVar(&options.nodes, "nodes", 2, "how many nodes there are")
	flags.BoolVar(&options.scheduler, "scheduler", false, "let kube-scheduler place pods")
	flags.BoolVar(&options.adoptNodes, "adopt-nodes", false, "run pods also on nodes that others create")
	flags.StringVar(&options.hpaSync, "hpa-sync", "2s", "how often the HPA controller works")
	flags.Var(&options.apiserverArg, "apiserver-argument", "a further argument of kube-apiserver (repeatable)")
	flags.Var(&options.managerArg, "controller-manager-argument", "a further argument of kube-controller-manager (repeatable)")
	_ = flags.Parse(arguments)
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer cancel()
	// Whoever started this may be killed: then the input ends, and so does all of this.
	lines := make(chan string)
	go func() {
		input := bufio.NewScanner(os.Stdin)
		for input.Scan() {
			lines <- input.Text()
		}
		cancel()
	}()
	cluster := &cluster{options: options}
	err := cluster.run(ctx, lines)
	cluster.tearDown()
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 1
	}
	return 0
}

func (c *cluster) run(ctx context.Context, lines <-chan string) error {
	began := time.Now()
	if err := c.start(ctx); err != nil {
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	about := ready{
		Kubeconfig:            c.credentials.adminKubeconfig,
		Server:                serverURL,
		State:                 c.options.state,
		Pid:                   os.Getpid(),
		ClientCACertificate:   c.credentials.cluster.path + ".crt",
		ClientCAKey:           c.credentials.cluster.path + ".key",
		FrontProxyCertificate: c.credentials.frontProxyCertificate,
		FrontProxyKey:         c.credentials.frontProxyKey,
		FrontProxyCA:          c.credentials.frontProxy.path + ".crt",
		FrontProxyCAKey:       c.credentials.frontProxy.path + ".key",
		Gateway:               gateway,
		Nodes:                 c.kubelet.own(),
		StartSeconds:          time.Since(began).Seconds(),
	}
	if err := answers.Encode(about); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-lines:
			if strings.TrimSpace(line) == "quit" {
				return nil
			}
			if err := answers.Encode(c.answer(ctx, line)); err != nil {
				return err
			}
		}
	}
}

// start brings everything up, in the order in which one needs the other.
func (c *cluster) start(ctx context.Context) error {
	if err := c.makeState(); err != nil {
		return err
	}
	var err error
	if c.network, err = newNetwork(); err != nil {
		return err
	}
	if c.credentials, err = newCredentials(c.options.state); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	state := c.options.state
	etcd := etcdComponent(program, state)
	apiserver := apiserverComponent(program, state, c.credentials, c.options.apiserverArg)
	manager := managerComponent(program, state, c.credentials, c.options.hpaSync, c.options.managerArg)
	c.components = []*component{etcd, apiserver, manager}
	for _, component := range []*component{etcd, apiserver} {
		if err := component.start(ctx); err != nil {
			return err
		}
	}
	if err := c.connect(); err != nil {
		return err
	}
	later := []*component{manager}
	if c.options.scheduler {
		scheduler, err := schedulerComponent(program, state, c.credentials)
		if err != nil {
			return err
		}
		later = append(later, scheduler)
		c.components = append(c.components, scheduler)
	}
	laterStarted := make(chan error, len(later))
	for _, component := range later {
		go func() { laterStarted <- component.start(ctx) }()
	}
	if c.kubelet, err = c.newKubelet(filepath.Dir(program)); err == nil {
		err = c.kubelet.start(ctx)
	}
	for _, folder := range c.options.crds {
		if err == nil {
			err = applyCRDs(ctx, c.config, folder)
		}
	}
	for range later {
		err = errors.Join(err, <-laterStarted)
	}
	if err != nil {
		return err
	}
	return c.waitForAccount(ctx)
}

func (c *cluster) makeState() error {
	if c.options.state == "" {
		folder, err := os.MkdirTemp("", "weir-cluster-")
		if err != nil {
			return err
		}
		c.options.state = folder
		return nil
	}
	folder, err := filepath.Abs(c.options.state)
	if err != nil {
		return err
	}
	c.options.state = folder
	// It is removed at the end: what somebody else made must not go with it.
	if err := os.Mkdir(folder, 0o700); err != nil {
		c.options.state = ""
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

func (c *cluster) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.credentials.adminKubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit of our own
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.config = config
	c.client, err = kubernetes.NewForConfig(config)
	return err
}

func (c *cluster) newKubelet(programs string) (*kubelet, error) {
	state := c.options.state
	log, err := os.OpenFile(filepath.Join(state, "kubelet.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	made := &kubelet{
		client:  c.client,
		network: c.network,
		folder:  state,
		runner:  filepath.Join(programs, "run-container"),
		images:  map[string]string{},
		log:     log,
		places:  !c.options.scheduler,
		adopts:  c.options.adoptNodes,
		nodes:   map[string]string{},
		pods:    map[types.UID]*pod{},
		binding: map[types.UID]bool{},
	}
	for number := range max(c.options.nodes, 1) {
		name := fmt.Sprintf("node-%d", number)
		if made.nodes[name], err = c.network.nodeAddress(number); err != nil {
			return nil, err
		}
		made.names = append(made.names, name)
	}
	for _, image := range c.options.images {
		name, program, ok := strings.Cut(image, "=")
		if !ok || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("--image %q: NAME=PROGRAM is wanted", image)
		}
		if made.images[name], err = copyProgram(program, filepath.Join(state, "images"), name); err != nil {
			return nil, fmt.Errorf("--image %s: %w", image, err)
		}
	}
	return made, nil
}

// copyProgram copies a program: the original may be rebuilt meanwhile, or be closed to other users.
func copyProgram(program, folder, name string) (string, error) {
	found, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	source, err := os.Open(found)
	if err != nil {
		return "", err
	}
	defer source.Close()
	path := filepath.Join(folder, name)
	target, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(target, source)
	return path, errors.Join(err, target.Chmod(0o755), target.Close())
}

// waitForAccount waits for the service account of namespace default: before that no pod is admitted there.
func (c *cluster) waitForAccount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		_, err := c.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("service account default/default: %w", err)
		}
	}
}

// tearDown ends everything at once and removes what was written.
func (c *cluster) tearDown() {
	if c.kubelet != nil {
		c.kubelet.stop()
	}
	for i := range c.components {
		c.components[len(c.components)-1-i].kill()
	}
	if c.options.state != "" {
		if err := os.RemoveAll(c.options.state); err != nil {
			fmt.Fprintln(os.Stderr, "cluster: state folder:", err)
		}
	}
}
