"""How the fields of the kubelet's and kube-proxy's configuration changed from 1.21 on, minor by minor.

Read off the published types `kubelet.config.k8s.io/v1beta1` and `kubeproxy.config.k8s.io/v1alpha1` (and those of
component-base inside them) at the last patch release of each minor version. Only `model.versions` chooses among
these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from kubewright.model.component_fields import ListOf, Shape

Nested: TypeAlias = Mapping[str, Any]
"""A mapping whose inner mappings belong to the fields inside; None takes a field away."""

_LOG_STREAM: Shape = {"infoBufferSize": "quantity", "splitStream": "flag"}
_LOG_MODULES = ListOf({"filePattern": "text", "verbosity": "int"})
_TAINTS = ListOf({"effect": "text", "key": "text", "timeAdded": "text", "value": "text"})

KUBELET_FIELDS: Mapping[str, Nested] = {
    "1.21": {
        "enableDebugFlagsHandler": "flag",
        "enableProfilingHandler": "flag",
        "memoryManagerPolicy": "text",
        "reservedMemory": ListOf({"limits": "quantity map", "numaNode": "int"}),
    },
    "1.22": {
        "cpuManagerPolicyOptions": "text map",
        "memorySwap": {"swapBehavior": "text"},
        "memoryThrottlingFactor": "number",
        "seccompDefault": "flag",
    },
    "1.23": {
        "logging": {
            "flushFrequency": "int",
            "options": {"json": _LOG_STREAM},
            "verbosity": "int",
            "vmodule": _LOG_MODULES,
        },
        "registerNode": "flag",
        "registerWithTaints": _TAINTS,
        "shutdownGracePeriodByPodPriority": ListOf({"priority": "int", "shutdownGracePeriodSeconds": "int"}),
    },
    "1.24": {"logging": {"sanitization": None}},
    "1.25": {
        "localStorageCapacityIsolation": "flag",
        "tracing": {"endpoint": "text", "samplingRatePerMillion": "int"},
    },
    "1.26": {"topologyManagerPolicyOptions": "text map"},
    "1.27": {
        "containerRuntimeEndpoint": "text",
        "enableSystemLogQuery": "flag",
        "imageServiceEndpoint": "text",
        "maxParallelImagePulls": "int",
    },
    "1.28": {"logging": {"flushFrequency": "duration or int"}},
    "1.29": {"imageMaximumGCAge": "duration"},
    "1.30": {
        "containerLogMaxWorkers": "int",
        "containerLogMonitorInterval": "duration",
        "logging": {"options": {"text": _LOG_STREAM}},
        "podLogsDir": "text",
    },
    "1.31": {"failCgroupV1": "flag"},
    "1.32": {
        "crashLoopBackOff": {"maxContainerRestartPeriod": "duration"},
        "singleProcessOOMKill": "flag",
    },
    "1.33": {
        "imagePullCredentialsVerificationPolicy": "text",
        "mergeDefaultEvictionSettings": "flag",
        "preloadedImagesVerificationAllowlist": "texts",
        "userNamespaces": {"idsPerPod": "int"},
    },
    "1.36": {"memoryReservationPolicy": "text", "tlsCurvePreferences": "ints"},
    "1.37": {"defaultPodSysctls": "text map"},
}

KUBELET_UNSET: Mapping[str, Nested] = {
    "1.22": {"memorySwap": {}},
    "1.23": {"logging": {"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}, "verbosity": 0}},
    "1.27": {"containerRuntimeEndpoint": ""},
    "1.29": {"imageMaximumGCAge": "0s"},
    "1.30": {"logging": {"options": {"text": {"infoBufferSize": "0"}}}},
    "1.32": {"crashLoopBackOff": {}},
}

KUBE_PROXY_FIELDS: Mapping[str, Nested] = {
    "1.24": {
        "detectLocal": {"bridgeInterface": "text", "interfaceNamePrefix": "text"},
        "winkernel": {"forwardHealthCheckVip": "flag", "rootHnsEndpointName": "text"},
    },
    "1.26": {"iptables": {"localhostNodePorts": "flag"}, "udpIdleTimeout": None},
    "1.28": {
        "logging": {
            "flushFrequency": "duration or int",
            "format": "text",
            "options": {"json": _LOG_STREAM},
            "verbosity": "int",
            "vmodule": _LOG_MODULES,
        }
    },
    "1.29": {
        "conntrack": {"tcpBeLiberal": "flag", "udpStreamTimeout": "duration", "udpTimeout": "duration"},
        "nftables": {
            "masqueradeAll": "flag",
            "masqueradeBit": "int",
            "minSyncPeriod": "duration",
            "syncPeriod": "duration",
        },
    },
    "1.30": {"logging": {"options": {"text": _LOG_STREAM}}},
    "1.31": {"windowsRunAsService": "flag"},
}

_NULL = object()
"""A value that is null in the document: None takes a field away."""

KUBE_PROXY_UNSET: Mapping[str, Nested] = {
    "1.24": {
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
        "winkernel": {"forwardHealthCheckVip": False, "rootHnsEndpointName": ""},
    },
    "1.26": {"iptables": {"localhostNodePorts": _NULL}, "udpIdleTimeout": None},
    "1.28": {"logging": {"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}, "verbosity": 0}},
    "1.29": {
        "conntrack": {"tcpBeLiberal": False, "udpStreamTimeout": "0s", "udpTimeout": "0s"},
        "nftables": {
            "masqueradeAll": False,
            "masqueradeBit": _NULL,
            "minSyncPeriod": "0s",
            "syncPeriod": "0s",
        },
    },
    "1.30": {"logging": {"options": {"text": {"infoBufferSize": "0"}}}},
}


def changed(base: Nested, changes: Mapping[str, Nested], series: str) -> dict[str, Any]:
    """`base` with the changes of one minor version, in alphabetical order, all the way down."""
    return _merged(base, changes.get(series, {}))


def _merged(base: Nested, change: Nested) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = _merged(merged.get(name, {}), value)
        else:
            merged[name] = None if value is _NULL else value
    return dict(sorted(merged.items()))
