"""The messages of the container runtime interface that we speak, built from a table when they are first needed.

Names and numbers are those of `api.proto` in k8s.io/cri-api; they are the same in its versions v1alpha2 and v1. A
field that is not in the table is passed over, as Protocol Buffers has it, so only what is used stands here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "kubewright.cri"
_TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    # An enumeration is an int32 on the wire.
    "enum": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
}

# Message: its fields as "type name = number"; a star before the type is a repeated field.
_MESSAGES: dict[str, tuple[str, ...]] = {
    "VersionRequest": ("string version = 1",),
    "VersionResponse": ("string runtime_name = 2", "string runtime_version = 3", "string runtime_api_version = 4"),
    "StatusRequest": ("bool verbose = 1",),
    "StatusResponse": ("RuntimeStatus status = 1",),
    "RuntimeStatus": ("*RuntimeCondition conditions = 1",),
    "RuntimeCondition": ("string type = 1", "bool status = 2", "string reason = 3", "string message = 4"),
    "ListPodSandboxRequest": (),
    "ListPodSandboxResponse": ("*PodSandbox items = 1",),
    "PodSandbox": (
        "string id = 1", "PodSandboxMetadata metadata = 2", "enum state = 3", "int64 created_at = 4",
        "*Label labels = 5",
    ),
    # A map is a list of these on the wire.
    "Label": ("string key = 1", "string value = 2"),
    "PodSandboxMetadata": ("string name = 1", "string uid = 2", "string namespace = 3", "uint32 attempt = 4"),
    "StopPodSandboxRequest": ("string pod_sandbox_id = 1",),
    "StopPodSandboxResponse": (),
    "RemovePodSandboxRequest": ("string pod_sandbox_id = 1",),
    "RemovePodSandboxResponse": (),
    "ListContainersRequest": (),
    "ListContainersResponse": ("*Container containers = 1",),
    "Container": (
        "string id = 1", "string pod_sandbox_id = 2", "ContainerMetadata metadata = 3", "ImageSpec image = 4",
        "string image_ref = 5", "enum state = 6", "int64 created_at = 7",
    ),
    "ContainerMetadata": ("string name = 1", "uint32 attempt = 2"),
    "ImageSpec": ("string image = 1",),
    "ContainerStatusRequest": ("string container_id = 1", "bool verbose = 2"),
    "ContainerStatusResponse": ("ContainerStatus status = 1",),
    "ContainerStatus": (
        "string id = 1", "ContainerMetadata metadata = 2", "enum state = 3", "int64 created_at = 4",
        "int64 started_at = 5", "int64 finished_at = 6", "int32 exit_code = 7", "string reason = 10",
        "string message = 11", "string log_path = 15",
    ),
    "ListImagesRequest": (),
    "ListImagesResponse": ("*Image images = 1",),
    "Image": ("string id = 1", "*string repo_tags = 2", "*string repo_digests = 3", "uint64 size = 4"),
    "ImageStatusRequest": ("ImageSpec image = 1", "bool verbose = 2"),
    "ImageStatusResponse": ("Image image = 1", "*Label info = 2"),
    "PullImageRequest": ("ImageSpec image = 1",),
    "PullImageResponse": ("string image_ref = 1",),
}  # fmt: skip


@cache
def message(name: str) -> Any:
    """The class of a message, as generated code would have it."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="kubewright/cri.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        kind = file.message_type.add(name=name)
        for text in fields:
            type_name, field_name, _, number = text.removeprefix("*").split()
            field = kind.field.add(name=field_name, number=int(number))
            repeated = text.startswith("*")
            field.label = (
                descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
                if repeated
                else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            )
            if type_name in _TYPES:
                field.type = _TYPES[type_name]
            else:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
