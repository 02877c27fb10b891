"""A `cluster.yaml` to begin with."""

EXAMPLE = """\
apiVersion: kubewright.dev/v1alpha1
kind: Cluster
name: example
kubernetesVersion: v1.20.2

# How the hosts are reached; a host can have an `ssh` of its own for what differs.
ssh:
  user: root
  # port: 22
  # keyFiles: [~/.ssh/id_ed25519]      # default: the agent, and the usual files under ~/.ssh
  # jump: admin@bastion.example.com

# The node's name must be the host's hostname. `address: local` is this computer, without SSH.
hosts:
  - name: cp1
    address: 192.168.7.11
    roles: [control-plane]
  - name: w1
    address: 192.168.7.12
  - name: w2
    address: 192.168.7.13
    # nodeIP: 10.0.0.13                # where the host has several networks
    # labels: {disk: ssd}
    # taints: [{key: dedicated, value: database, effect: NoSchedule}]

# Pod, service and host networks must not overlap.
network:
  plugin: builtin
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/12

# What clients use for the API, where that is not the control plane's own address:
# endpoint: api.example.com:6443

# kubeadm's own kinds, passed through:
# clusterConfiguration:
#   apiServer:
#     certSANs: [api.example.com]
#     extraArgs: {audit-log-maxage: "7"}
# kubeletConfiguration:
#   maxPods: 60
# kubeProxyConfiguration:
#   mode: iptables
"""
