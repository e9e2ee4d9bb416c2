// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// tokenLife is how long a service account's token holds.
const tokenLife = 24 * time.Hour

// writeAdminKubeconfig writes DIR/NAME/kubeconfig with the admin's client certificate.
func writeAdminKubeconfig(f folder, url string) error {
	cert, err := os.ReadFile(f.pki("admin.crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(f.pki("admin.key"))
	if err != nil {
		return err
	}
	admin := &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	return writeKubeconfig(f, f.kubeconfig(), url, "admin", admin)
}

// writeKubeconfig writes a file that carries all it needs: it may be moved and given to others.
func writeKubeconfig(f folder, file, url, user string, auth *clientcmdapi.AuthInfo) error {
	ca, err := os.ReadFile(f.pki("ca.crt"))
	if err != nil {
		return err
	}
	user = f.name + "-" + user
	raw, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{f.name: {Server: url, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: auth},
		Contexts:       map[string]*clientcmdapi.Context{f.name: {Cluster: f.name, AuthInfo: user}},
		CurrentContext: f.name,
	})
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", file, err)
	}
	return writeFile(file, raw)
}

// serviceAccountKubeconfig asks the running member for a token of an existing service account
// and returns the path of a kubeconfig that holds it.
func serviceAccountKubeconfig(ctx context.Context, f folder, account string) (string, error) {
	namespace, name, found := strings.Cut(account, "/")
	if !found || namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("--service-account %q: write it as namespace/name", account)
	}
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig())
	if err != nil {
		return "", fmt.Errorf("member %s: %w: start it first", f.name, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", fmt.Errorf("member %s: %w", f.name, err)
	}
	seconds := int64(tokenLife / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("member %s: no service account %s: create it first (kubectl -n %s create serviceaccount %s)", f.name, account, namespace, name)
	case err != nil:
		return "", fmt.Errorf("member %s: token for %s: %w", f.name, account, err)
	}
	file := f.path("kubeconfig-" + namespace + "-" + name)
	auth := &clientcmdapi.AuthInfo{Token: answer.Status.Token}
	return file, writeKubeconfig(f, file, config.Host, namespace+"-"+name, auth)
}
