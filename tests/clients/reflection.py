"""Runs and terminates an instance with what gRPC reflection tells, and nothing of Hearth's own.

usage: reflection.py unix:PATH IMAGE-ID
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


# For a Unix socket gRPC's C core sends the percent-encoded path as `:authority`, which hearthd's HTTP/2 refuses.
OPTIONS = [("grpc.default_authority", "localhost")]


def main(target: str, image_id: str) -> None:
    with grpc.insecure_channel(target, options=OPTIONS) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = database.get_services()
        print("services:", *sorted(services))
        pool = descriptor_pool.DescriptorPool(database)
        service = pool.FindServiceByName("hearth.v1.Instances")

        def call(name: str, **fields):
            method = service.FindMethodByName(name)
            request = message_factory.GetMessageClass(method.input_type)
            response = message_factory.GetMessageClass(method.output_type)
            stub = channel.unary_unary(
                f"/{service.full_name}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response.FromString,
            )
            return stub(request(**fields), timeout=60)

        reservation = call(
            "RunInstances",
            image_id=image_id,
            instance_type="t2.nano",
            min_count=1,
            max_count=1,
        )
        instance_id = reservation.instances[0].instance_id
        print("launched:", instance_id, reservation.instances[0].state.name)
        described = call("DescribeInstances", instance_ids=[instance_id])
        assert described.reservations[0].instances[0].instance_id == instance_id
        changes = call("TerminateInstances", instance_ids=[instance_id])
        print("terminated:", changes.terminating_instances[0].current_state.name)
        assert changes.terminating_instances[0].current_state.code in (32, 48)

        try:
            call("TerminateInstances", instance_ids=["i-00000000000000000"])
        except grpc.RpcError as error:
            print("refused:", error.code(), error.details())
        else:
            raise AssertionError("an unknown id was accepted")


if __name__ == "__main__":
    main(*sys.argv[1:])
