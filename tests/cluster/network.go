package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	bridgeName     = "br0"
	gateway        = "10.244.0.1"
	serviceNetwork = "10.96.0.0/16"
	serviceAddress = "10.96.0.1"
	// Addresses of nodes are 10.244.0.10 and up, of pods 10.244.1.0 and up.
	firstNode = 10
	firstPod  = 1 << 8
	lastPod   = 1<<16 - 2
)

// The network of the cluster: a bridge in the network namespace that this process runs in.
type network struct {
	bridge netlink.Link
	lo     netlink.Link

	mutex sync.Mutex
	next  int
	used  map[int]bool
}

// An attachment is a pod's place in the network.
type attachment struct {
	address string
	// The pod's network namespace; none for a pod without processes, whose address belongs to the cluster's namespace, so that
	// whoever runs there may listen on it.
	namespace *os.File
	number    int
	link      string
}

// newNetwork sets up the network namespace of the cluster, which must be a fresh one.
func newNetwork() (*network, error) {
	wayOut := "(start it in a fresh network namespace, as root: `unshare -n`, or `unshare -rn` without root)"
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback: %w %s", err, wayOut)
	}
	if _, err := netlink.LinkByName(bridgeName); err == nil {
		return nil, fmt.Errorf("%s exists: another cluster runs in this network namespace %s", bridgeName, wayOut)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagUp != 0 && link.Attrs().Flags&net.FlagLoopback == 0 {
			return nil, fmt.Errorf("interface %s is up: this is no network namespace made for the cluster %s", link.Attrs().Name, wayOut)
		}
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("loopback up: %w %s", err, wayOut)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
		return nil, fmt.Errorf("bridge %s: %w", bridgeName, err)
	}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, err
	}
	if err := netlink.AddrAdd(bridge, podNetworkAddress(gateway)); err != nil {
		return nil, fmt.Errorf("address %s: %w", gateway, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return nil, err
	}
	made := &network{bridge: bridge, lo: lo, next: firstPod, used: map[int]bool{}}
	// Only the apiserver's own: under any other address of services nobody listens, and a connection must fail.
	return made, made.own(serviceAddress)
}

func podNetworkAddress(address string) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(16, 32)}}
}

func (n *network) local(address string) *netlink.Route {
	return &netlink.Route{
		LinkIndex: n.lo.Attrs().Index,
		Dst:       &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(32, 32)},
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
		Scope:     netlink.SCOPE_HOST,
	}
}

// own makes the address one of the cluster's namespace.
func (n *network) own(address string) error {
	if err := netlink.RouteAdd(n.local(address)); err != nil {
		return fmt.Errorf("local route for %s: %w", address, err)
	}
	return nil
}

// nodeAddress gives the address of the node with that number.
func (n *network) nodeAddress(number int) (string, error) {
	address := fmt.Sprintf("10.244.0.%d", firstNode+number)
	return address, n.own(address)
}

// attach gives a pod an address, and a network namespace when it has processes.
func (n *network) attach(processes bool) (*attachment, error) {
	number, err := n.take()
	if err != nil {
		return nil, err
	}
	made := &attachment{address: fmt.Sprintf("10.244.%d.%d", number>>8, number&0xff), number: number}
	if processes {
		err = n.connect(made)
	} else {
		err = n.own(made.address)
	}
	if err != nil {
		n.detach(made)
		return nil, err
	}
	return made, nil
}

func (n *network) take() (int, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for range lastPod - firstPod {
		number := n.next
		n.next++
		if n.next > lastPod {
			n.next = firstPod
		}
		// .0 and .255 are ordinary addresses of a /16, but some programs take offence.
		if last := number & 0xff; last != 0 && last != 0xff && !n.used[number] {
			n.used[number] = true
			return number, nil
		}
	}
	return 0, errors.New("no free pod address is left")
}

// detach gives back what attach gave.
func (n *network) detach(from *attachment) {
	if from.link != "" {
		if link, err := netlink.LinkByName(from.link); err == nil {
			_ = netlink.LinkDel(link)
		}
	}
	if from.namespace != nil {
		_ = from.namespace.Close()
	} else {
		_ = netlink.RouteDel(n.local(from.address))
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	delete(n.used, from.number)
}

// connect makes the pod's network namespace and a pair of links from it to the bridge.
func (n *network) connect(pod *attachment) error {
	namespace, err := newNamespace()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	pod.namespace = os.NewFile(uintptr(namespace), "netns")
	attributes := netlink.NewLinkAttrs()
	attributes.Name = fmt.Sprintf("pod%d", pod.number)
	attributes.MasterIndex = n.bridge.Attrs().Index
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(namespace)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("link pair %s: %w", attributes.Name, err)
	}
	pod.link = attributes.Name
	if err := netlink.LinkSetUp(pair); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%s in the pod: %w", name, err)
		}
		if name == "eth0" {
			if err := inside.AddrAdd(link, podNetworkAddress(pod.address)); err != nil {
				return fmt.Errorf("address %s in the pod: %w", pod.address, err)
			}
		}
		if err := inside.LinkSetUp(link); err != nil {
			return err
		}
	}
	return inside.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)})
}

// newNamespace makes a network namespace whose processes may listen on any port, as containers may.
func newNamespace() (netns.NsHandle, error) {
	// The thread leaves the cluster's namespace for a moment. When it cannot come back it stays locked and ends with its goroutine.
	result := make(chan error, 1)
	var made netns.NsHandle
	go func() {
		runtime.LockOSThread()
		origin, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer origin.Close()
		made, err = netns.New()
		if err == nil {
			err = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o644)
			if err != nil {
				_ = made.Close()
			}
		}
		back := netns.Set(origin)
		if back == nil {
			runtime.UnlockOSThread()
		}
		result <- errors.Join(err, back)
	}()
	err := <-result
	return made, err
}
