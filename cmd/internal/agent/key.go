// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

const (
	keySecret = "flotilla-agent-key" //nolint:gosec // a name
	keyField  = "ed25519.seed"
)

// MemberKey is the member's own, made once in a Secret of the agent's namespace. It never leaves it.
func MemberKey(ctx context.Context, client kubernetes.Interface, namespace string) (ed25519.PrivateKey, error) {
	secrets := client.CoreV1().Secrets(namespace)
	held, err := secrets.Get(ctx, keySecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		held, err = makeKey(ctx, client, namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("member key: %w", err)
	}
	seed := held.Data[keyField]
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("member key: Secret %s/%s has no %s of %d bytes; put the member's key back, or delete the Secret and put the new peer ID on the roster with a higher incarnation",
			namespace, keySecret, keyField, ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func makeKey(ctx context.Context, client kubernetes.Interface, namespace string) (*corev1.Secret, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, err
	}
	made, err := client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: keySecret},
		Data:       map[string][]byte{keyField: seed},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) { // another start was faster: its key is the member's
		return client.CoreV1().Secrets(namespace).Get(ctx, keySecret, metav1.GetOptions{})
	}
	return made, err
}

// IDOf the member whose key this is.
func IDOf(key ed25519.PrivateKey) fleet.MemberID {
	return fleet.MemberIDOf(key.Public().(ed25519.PublicKey))
}
