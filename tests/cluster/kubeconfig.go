package main

import (
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfig issues a client certificate and writes a kubeconfig with everything inside; its path.
func (c *credentials) kubeconfig(name string, of subject) (string, error) {
	certificate, key, err := c.cluster.issue(c.folder, name, of)
	if err != nil {
		return "", err
	}
	content := map[string][]byte{}
	for _, file := range []string{certificate, key, c.file("cluster-ca.crt")} {
		if content[file], err = os.ReadFile(file); err != nil {
			return "", err
		}
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: serverURL, CertificateAuthorityData: content[c.file("cluster-ca.crt")]}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: content[certificate], ClientKeyData: content[key]}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: name}
	config.CurrentContext = "test"
	path := c.file(name + ".kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}
