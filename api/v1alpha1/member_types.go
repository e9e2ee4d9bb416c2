// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FleetMember is one cluster. Selection uses metadata.labels, as the platform wrote them; never what the agent says of itself.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=fm,categories=flotilla
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.spec.zone`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.kubernetesVersion`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",message="a DNS label of at most 63 characters; it becomes ${CLUSTER} and a label value"
type FleetMember struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +required
	Spec   FleetMemberSpec   `json:"spec"`
	Status FleetMemberStatus `json:"status,omitempty"`
}

// FleetMemberList is a list of FleetMembers.
// +kubebuilder:object:root=true
type FleetMemberList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FleetMember `json:"items"`
}

// FleetMemberSpec is what the platform says of a cluster.
type FleetMemberSpec struct {
	// PeerID of the agent; printed by 'flotilla-agent id'. To replace the cluster behind a name, raise incarnation.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$')",message="the peer ID of an Ed25519 key (12D3KooW...), as 'flotilla-agent id' prints it; RSA keys (Qm...) are refused"
	// +required
	PeerID string `json:"peerID"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:default=1
	// +optional
	Incarnation int64 `json:"incarnation,omitempty"`
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:default=default
	// +optional
	Zone string `json:"zone,omitempty"`
	// Addresses at which others can dial it: multiaddrs over tcp or quic-v1, with an IP address or a name. A member with any is an anchor; one without only dials out.
	// +kubebuilder:validation:MaxItems=8
	// +listType=set
	// +optional
	Addresses []string `json:"addresses,omitempty"`
}

// FleetMemberStatus is what the member whose API this is knows of the cluster.
type FleetMemberStatus struct {
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// +optional
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`
}
