"""How far Kubewright takes kubeadm's place: its commands, flags, files and objects beside kubeadm 1.20.2's."""
