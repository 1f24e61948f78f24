"""The fraud scoring service: python server.py [port]. Prints its port and runs until it is stopped."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, str(Path(__file__).parent))
import fraud_pb2
import fraud_pb2_grpc

MODEL_VERSION = "2026-11"
RISKY_CATEGORIES = {"gambling", "jewellery", "gift cards"}


class FraudScoring(fraud_pb2_grpc.FraudScoringServicer):
    def Score(self, request, context):
        scores = [score(transaction) for transaction in request.transactions]
        return fraud_pb2.ScoreResponse(scores=scores, model_version=MODEL_VERSION)

    def Report(self, request, context):
        return fraud_pb2.ReportResponse()


def score(transaction):
    if transaction.amount < 0:
        raise ValueError("amount is negative")
    probability, reasons = 0.01, []
    if transaction.amount > 1000:
        probability += 0.3
        reasons.append("large amount")
    if transaction.merchant.category in RISKY_CATEGORIES:
        probability += 0.25
        reasons.append("risky category")
    if transaction.channel == fraud_pb2.CHANNEL_ONLINE:
        probability += 0.1
        reasons.append("not at a terminal")
    if transaction.HasField("card_country") and transaction.card_country != transaction.merchant.country:
        probability += 0.2
        reasons.append("card from another country")
    if transaction.time.seconds // 3600 % 24 < 5:
        probability += 0.1
        reasons.append("at night")
    return fraud_pb2.Score(transaction_id=transaction.id, probability=probability, reasons=reasons)


def serve(port=0):
    server = grpc.server(ThreadPoolExecutor(8))
    fraud_pb2_grpc.add_FraudScoringServicer_to_server(FraudScoring(), server)
    service = fraud_pb2.DESCRIPTOR.services_by_name["FraudScoring"].full_name
    reflection.enable_server_reflection([service, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


if __name__ == "__main__":
    _, listening = serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(listening, flush=True)
    threading.Event().wait()
