"""The fields of the kubelet's and kube-proxy's configuration kinds in 1.20: facts, used to find mistakes.

Taken from the published types `kubelet.config.k8s.io/v1beta1` and `kubeproxy.config.k8s.io/v1alpha1`. A value is
the field's kind of content, or a mapping for a field that has fields of its own. What later versions changed is
in `model.component_changes`; only `model.versions` chooses among these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class ListOf:
    """A field that is a list of mappings of one shape."""

    shape: Shape


Shape: TypeAlias = Mapping[str, "str | ListOf | Shape"]
"""Field name to `text`, `flag`, `int`, `number`, `duration`, `duration or int`, `quantity`, `texts`, `ints`,
`text map`, `flag map`, `texts map`, `quantity map`, or to the shape of the fields inside."""

KUBELET_V1BETA1_1_20: Shape = {
    "address": "text",
    "allowedUnsafeSysctls": "texts",
    "authentication": {
        "anonymous": {
            "enabled": "flag",
        },
        "webhook": {
            "cacheTTL": "duration",
            "enabled": "flag",
        },
        "x509": {
            "clientCAFile": "text",
        },
    },
    "authorization": {
        "mode": "text",
        "webhook": {
            "cacheAuthorizedTTL": "duration",
            "cacheUnauthorizedTTL": "duration",
        },
    },
    "cgroupDriver": "text",
    "cgroupRoot": "text",
    "cgroupsPerQOS": "flag",
    "clusterDNS": "texts",
    "clusterDomain": "text",
    "configMapAndSecretChangeDetectionStrategy": "text",
    "containerLogMaxFiles": "int",
    "containerLogMaxSize": "text",
    "contentType": "text",
    "cpuCFSQuota": "flag",
    "cpuCFSQuotaPeriod": "duration",
    "cpuManagerPolicy": "text",
    "cpuManagerReconcilePeriod": "duration",
    "enableContentionProfiling": "flag",
    "enableControllerAttachDetach": "flag",
    "enableDebuggingHandlers": "flag",
    "enableServer": "flag",
    "enableSystemLogHandler": "flag",
    "enforceNodeAllocatable": "texts",
    "eventBurst": "int",
    "eventRecordQPS": "int",
    "evictionHard": "text map",
    "evictionMaxPodGracePeriod": "int",
    "evictionMinimumReclaim": "text map",
    "evictionPressureTransitionPeriod": "duration",
    "evictionSoft": "text map",
    "evictionSoftGracePeriod": "text map",
    "failSwapOn": "flag",
    "featureGates": "flag map",
    "fileCheckFrequency": "duration",
    "hairpinMode": "text",
    "healthzBindAddress": "text",
    "healthzPort": "int",
    "httpCheckFrequency": "duration",
    "imageGCHighThresholdPercent": "int",
    "imageGCLowThresholdPercent": "int",
    "imageMinimumGCAge": "duration",
    "iptablesDropBit": "int",
    "iptablesMasqueradeBit": "int",
    "kernelMemcgNotification": "flag",
    "kubeAPIBurst": "int",
    "kubeAPIQPS": "int",
    "kubeReserved": "text map",
    "kubeReservedCgroup": "text",
    "kubeletCgroups": "text",
    "logging": {
        "format": "text",
        "sanitization": "flag",
    },
    "makeIPTablesUtilChains": "flag",
    "maxOpenFiles": "int",
    "maxPods": "int",
    "nodeLeaseDurationSeconds": "int",
    "nodeStatusMaxImages": "int",
    "nodeStatusReportFrequency": "duration",
    "nodeStatusUpdateFrequency": "duration",
    "oomScoreAdj": "int",
    "podCIDR": "text",
    "podPidsLimit": "int",
    "podsPerCore": "int",
    "port": "int",
    "protectKernelDefaults": "flag",
    "providerID": "text",
    "qosReserved": "text map",
    "readOnlyPort": "int",
    "registryBurst": "int",
    "registryPullQPS": "int",
    "reservedSystemCPUs": "text",
    "resolvConf": "text",
    "rotateCertificates": "flag",
    "runOnce": "flag",
    "runtimeRequestTimeout": "duration",
    "serializeImagePulls": "flag",
    "serverTLSBootstrap": "flag",
    "showHiddenMetricsForVersion": "text",
    "shutdownGracePeriod": "duration",
    "shutdownGracePeriodCriticalPods": "duration",
    "staticPodPath": "text",
    "staticPodURL": "text",
    "staticPodURLHeader": "texts map",
    "streamingConnectionIdleTimeout": "duration",
    "syncFrequency": "duration",
    "systemCgroups": "text",
    "systemReserved": "text map",
    "systemReservedCgroup": "text",
    "tlsCertFile": "text",
    "tlsCipherSuites": "texts",
    "tlsMinVersion": "text",
    "tlsPrivateKeyFile": "text",
    "topologyManagerPolicy": "text",
    "topologyManagerScope": "text",
    "volumePluginDir": "text",
    "volumeStatsAggPeriod": "duration",
}

KUBE_PROXY_V1ALPHA1_1_20: Shape = {
    "bindAddress": "text",
    "bindAddressHardFail": "flag",
    "clientConnection": {
        "acceptContentTypes": "text",
        "burst": "int",
        "contentType": "text",
        "kubeconfig": "text",
        "qps": "number",
    },
    "clusterCIDR": "text",
    "configSyncPeriod": "duration",
    "conntrack": {
        "maxPerCore": "int",
        "min": "int",
        "tcpCloseWaitTimeout": "duration",
        "tcpEstablishedTimeout": "duration",
    },
    "detectLocalMode": "text",
    "enableProfiling": "flag",
    "featureGates": "flag map",
    "healthzBindAddress": "text",
    "hostnameOverride": "text",
    "iptables": {
        "masqueradeAll": "flag",
        "masqueradeBit": "int",
        "minSyncPeriod": "duration",
        "syncPeriod": "duration",
    },
    "ipvs": {
        "excludeCIDRs": "texts",
        "minSyncPeriod": "duration",
        "scheduler": "text",
        "strictARP": "flag",
        "syncPeriod": "duration",
        "tcpFinTimeout": "duration",
        "tcpTimeout": "duration",
        "udpTimeout": "duration",
    },
    "metricsBindAddress": "text",
    "mode": "text",
    "nodePortAddresses": "texts",
    "oomScoreAdj": "int",
    "portRange": "text",
    "showHiddenMetricsForVersion": "text",
    "udpIdleTimeout": "duration",
    "winkernel": {
        "enableDSR": "flag",
        "networkName": "text",
        "sourceVip": "text",
    },
}

KUBELET_UNSET_1_20: Mapping[str, Any] = {
    "authentication": {"anonymous": {}, "webhook": {"cacheTTL": "0s"}, "x509": {}},
    "authorization": {"webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}},
    "cpuManagerReconcilePeriod": "0s",
    "evictionPressureTransitionPeriod": "0s",
    "fileCheckFrequency": "0s",
    "httpCheckFrequency": "0s",
    "imageMinimumGCAge": "0s",
    "logging": {},
    "nodeStatusReportFrequency": "0s",
    "nodeStatusUpdateFrequency": "0s",
    "runtimeRequestTimeout": "0s",
    "shutdownGracePeriod": "0s",
    "shutdownGracePeriodCriticalPods": "0s",
    "streamingConnectionIdleTimeout": "0s",
    "syncFrequency": "0s",
    "volumeStatsAggPeriod": "0s",
}
"""What Go writes of a KubeletConfiguration in which nothing is set: it leaves out no duration and no structure."""

KUBE_PROXY_UNSET_1_20: Mapping[str, Any] = {
    "bindAddress": "",
    "bindAddressHardFail": False,
    "clientConnection": {"acceptContentTypes": "", "burst": 0, "contentType": "", "kubeconfig": "", "qps": 0},
    "clusterCIDR": "",
    "configSyncPeriod": "0s",
    "conntrack": {
        "maxPerCore": None,
        "min": None,
        "tcpCloseWaitTimeout": None,
        "tcpEstablishedTimeout": None,
    },
    "detectLocalMode": "",
    "enableProfiling": False,
    "healthzBindAddress": "",
    "hostnameOverride": "",
    "iptables": {"masqueradeAll": False, "masqueradeBit": None, "minSyncPeriod": "0s", "syncPeriod": "0s"},
    "ipvs": {
        "excludeCIDRs": None,
        "minSyncPeriod": "0s",
        "scheduler": "",
        "strictARP": False,
        "syncPeriod": "0s",
        "tcpFinTimeout": "0s",
        "tcpTimeout": "0s",
        "udpTimeout": "0s",
    },
    "metricsBindAddress": "",
    "mode": "",
    "nodePortAddresses": None,
    "oomScoreAdj": None,
    "portRange": "",
    "showHiddenMetricsForVersion": "",
    "udpIdleTimeout": "0s",
    "winkernel": {"enableDSR": False, "networkName": "", "sourceVip": ""},
}
