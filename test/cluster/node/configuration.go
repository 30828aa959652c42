//go:build linux

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"remora.dev/remora/test/cluster/pki"
)

// Images of the node's own pods. The host does not exist, so that nobody can be asked for them.
const (
	pauseImage = "cluster.invalid/pause:1"
	dnsImage   = "cluster.invalid/coredns:1"
)

// prepare fills the folder with keys and configuration.
func (s *spec) prepare() error {
	for _, dir := range []string{"log", "pki", "etc", "cni"} {
		if err := os.MkdirAll(s.file(dir), 0o755); err != nil {
			return err
		}
	}
	if err := s.writeKeys(); err != nil {
		return fmt.Errorf("keys of the cluster: %w", err)
	}
	if s.ControlPlane {
		return nil
	}
	kubelet, errKubelet := json.Marshal(s.kubeletConfig())
	proxy, errProxy := json.Marshal(s.proxyConfig())
	cni, errNetwork := json.Marshal(podNetwork())
	return errors.Join(errKubelet, errProxy, errNetwork,
		s.write("etc/kubelet.json", string(kubelet)),
		s.write("etc/kube-proxy.json", string(proxy)),
		s.write("cni/10-pods.conflist", string(cni)),
		s.write("etc/containerd.toml", s.containerdConfig()),
		// Nothing answers there: the cluster has no outside.
		s.write("etc/resolv.conf", "nameserver "+s.hostAddress()+"\n"),
	)
}

func (s *spec) writeKeys() error {
	authority, err := pki.NewAuthority("kubernetes")
	if err != nil {
		return err
	}
	front, err := pki.NewAuthority("front-proxy")
	if err != nil {
		return err
	}
	private, public, err := pki.NewKey()
	if err != nil {
		return err
	}
	local, node := net.IPv4(127, 0, 0, 1), net.ParseIP(s.nodeAddress())
	server, errServer := authority.Server("kube-apiserver", []net.IP{local, node, net.ParseIP(apiAddress)}, "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	kubelet, errKubelet := authority.Server("system:node:"+s.Name, []net.IP{local, node}, s.Name)
	asker, errAsker := authority.Client("kube-apiserver-kubelet-client", "system:masters")
	frontClient, errFront := front.Client("front-proxy-client")
	err = errors.Join(errServer, errKubelet, errAsker, errFront)
	for name, pair := range map[string]pki.Pair{
		"ca": authority.Pair, "apiserver": server, "kubelet": kubelet, "apiserver-kubelet": asker,
		"front": front.Pair, "front-client": frontClient, "accounts": {Key: private},
	} {
		err = errors.Join(err, s.write("pki/"+name+".crt", string(pair.Certificate)), s.write("pki/"+name+".key", string(pair.Key)))
	}
	err = errors.Join(err, s.write("pki/accounts.pub", string(public)))
	for file, user := range map[string]struct {
		name   string
		groups []string
	}{
		"kubeconfig":                        {"admin", []string{"system:masters"}},
		"pki/controller-manager.kubeconfig": {"system:kube-controller-manager", nil},
		"pki/scheduler.kubeconfig":          {"system:kube-scheduler", nil},
		"pki/kube-proxy.kubeconfig":         {"system:kube-proxy", nil},
		"pki/kubelet.kubeconfig":            {"system:node:" + s.Name, []string{"system:nodes"}},
	} {
		pair, errUser := authority.Client(user.name, user.groups...)
		err = errors.Join(err, errUser, s.write(file, string(authority.Kubeconfig(s.url(), pair))))
	}
	return err
}

type object = map[string]any

func (s *spec) kubeletConfig() object {
	return object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true},
			"x509": object{"clientCAFile": s.file("pki", "ca.crt")},
		},
		"authorization": object{"mode": "Webhook"},
		"tlsCertFile":   s.file("pki", "kubelet.crt"), "tlsPrivateKeyFile": s.file("pki", "kubelet.key"),
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"cgroupDriver":             "cgroupfs",
		"failCgroupV1":             false, // machines that have only version 1 are still about
		"failSwapOn":               false,
		"clusterDNS":               []string{dnsAddress}, "clusterDomain": "cluster.local", "resolvConf": s.file("etc", "resolv.conf"),
		"podCIDR":         podRange,
		"volumePluginDir": s.file("plugins"),
		// How often a mounted Secret is looked at again: tests wait for it.
		"syncFrequency": "5s", "configMapAndSecretChangeDetectionStrategy": "Watch",
		"nodeStatusUpdateFrequency": "5s",
		// A full disk of the developer's is no reason to evict a test.
		"imageGCHighThresholdPercent": 100,
		"evictionHard": object{
			"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
		},
	}
}

func (s *spec) proxyConfig() object {
	return object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode":             "iptables",
		"clientConnection": object{"kubeconfig": s.file("pki", "kube-proxy.kubeconfig")},
		"clusterCIDR":      podRange,
		// The limits of conntrack are the machine's, not the namespace's: zero leaves them alone.
		"conntrack": object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		"iptables":  object{"minSyncPeriod": "100ms"},
	}
}

func podNetwork() object {
	return object{"cniVersion": "0.4.0", "name": "pods", "plugins": []object{
		{
			"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
			"ipam": object{
				"type": "host-local", "dataDir": "/run/cni",
				"ranges": [][]object{{{"subnet": podRange}}}, "routes": []object{{"dst": "0.0.0.0/0"}},
			},
		},
		{"type": "portmap", "capabilities": object{"portMappings": true}},
	}}
}

// containerdSocket is where it is inside.
const containerdSocket = "/run/containerd/containerd.sock"

func (s *spec) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %[1]q
state = "/run/containerd"
[grpc]
  address = %[2]q
[plugins."io.containerd.internal.v1.opt"]
  path = %[3]q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[4]q
  restrict_oom_score_adj = true # in a container, nobody may protect a process better than the one that starts it
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %[5]q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[6]q
    conf_dir = %[7]q
`, s.file("containerd"), containerdSocket, s.file("opt"), pauseImage, s.snapshotter(), pluginFolder(), s.file("cni"))
}

// snapshotter is overlayfs, unless the folder is on an overlay itself, as in a container: Linux puts none upon another.
func (s *spec) snapshotter() string {
	const overlay = 0x794c7630
	var status syscall.Statfs_t
	if syscall.Statfs(s.Folder, &status) == nil && status.Type == overlay {
		return "native"
	}
	return "overlayfs"
}

// pluginFolder is where the CNI plugins are: Debian's place, or that of the project's own archives.
func pluginFolder() string {
	for _, dir := range []string{"/usr/lib/cni", "/usr/libexec/cni"} {
		if _, err := os.Stat(dir + "/bridge"); err == nil {
			return dir
		}
	}
	return "/opt/cni/bin"
}
