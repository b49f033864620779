"""`/endpoints/{id}/…`: what may be asked of an endpoint. Each act is a POST."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import endpoints, rotation, verification
from jetrelay import busy
from jetrelay.api.endpoints import STATES, Endpoints, tried
from jetrelay.api.fields import Moment, Nothing, Strict, Text, Whole
from jetrelay.api.problems import Problem
from subscriptions.models import MAX_SECRET_OVERLAP, SECRET_OVERLAP, Endpoint

State = Endpoint.State


class Reason(Strict):
    reason = Text(required=False, max_length=150, help_text="Why, for whoever looks later.")


class Overlap(Strict):
    overlap_s = Whole(
        required=False,
        min_value=0,
        max_value=int(MAX_SECRET_OVERLAP.total_seconds()),
        help_text="How long the old secret stays valid: 24 hours unless you say otherwise; 0 if it has leaked.",
    )


class _Act(Endpoints):
    scopes = {"POST": "endpoints:write"}
    action = ""

    def post(self, request: Request, id: str) -> Response:
        raise NotImplementedError

    def move(self, id: str, change: Any, to: Sequence[str], refusal: str) -> Response:
        """Do it, unless it is so already. `refusal` says why it cannot be done in any other state."""
        endpoint = self.mine(id)
        if change(Endpoint.objects.filter(pk=endpoint.pk)):
            self.note(f"endpoint.{self.action}", endpoint.public_id)
        elif self.mine(id).state not in to:
            raise Problem(409, "wrong_state", f"The endpoint is {endpoint.get_state_display().lower()}. {refusal}")
        return self.shown(endpoint)

    def why(self, done: str) -> str:
        """The reason that is kept with the state."""
        given = self.body(Reason).get("reason")
        return f"{done} by {self.bearer.actor}{f': {given}' if given else ''}"


class Pause(_Act):
    action = "pause"

    def post(self, request: Request, id: str) -> Response:
        why = self.why("paused")
        return self.move(id, lambda rows: endpoints.pause(rows, why), (State.PAUSED,), "Only an active one can be paused.")


class Resume(_Act):
    action = "resume"

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        return self.move(id, endpoints.resume, (State.ACTIVE,), "Only a paused one can be resumed: enable one that is disabled, verify one that is unverified.")


class Disable(_Act):
    action = "disable"

    def post(self, request: Request, id: str) -> Response:
        why = self.why("disabled")
        return self.move(id, lambda rows: endpoints.disable(rows, why), (State.DISABLED,), "Only an active or a paused one can be disabled.")


class Enable(_Act):
    action = "enable"

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        return self.move(id, endpoints.enable, (State.ACTIVE,), "Only a disabled one can be enabled: resume one that is paused, verify one that is unverified.")


class ResetBreaker(_Act):
    action = "reset-breaker"

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        return self.move(id, endpoints.reset_breaker, STATES, "")


class _Try(_Act):
    # A transaction must not wait for a receiver.
    atomic = False

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        endpoint = self.mine(id)
        outcome = self.how(endpoint)
        if outcome.busy:
            raise busy.problem(outcome.words, verification.RETRY_AFTER_S)
        self.note(f"endpoint.{self.action}", endpoint.public_id, "passed" if outcome.passed else "failed")
        return Response(tried(outcome))

    def how(self, endpoint: Endpoint) -> verification.Outcome:
        raise NotImplementedError


class Verify(_Try):
    action = "verify"

    def how(self, endpoint: Endpoint) -> verification.Outcome:
        return verification.verify(endpoint)


class Test(_Try):
    action = "test"

    def how(self, endpoint: Endpoint) -> verification.Outcome:
        return verification.send_test(endpoint)


class RotateSecret(_Act):
    action = "rotate-secret"

    def post(self, request: Request, id: str) -> Response:
        seconds = self.body(Overlap).get("overlap_s")
        overlap = SECRET_OVERLAP if seconds is None else timedelta(seconds=seconds)
        try:
            endpoint = rotation.rotate(self.mine(id).pk, overlap)
        except rotation.NotRotatable as refusal:
            raise Problem(409, "not_rotatable", str(refusal)) from refusal
        self.note("endpoint.rotate-secret", endpoint.public_id, f"the old one ends in {int(overlap.total_seconds())} s")
        until = Moment().to_representation(endpoint.previous_secret_expires_at)
        return Response({"secret": endpoint.secret, "previous_secret_expires_at": until})


class RevealSecret(_Act):
    scopes = {"POST": "secrets:read"}
    action = "reveal-secret"

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        endpoint = self.mine(id)
        self.note("endpoint.reveal-secret", endpoint.public_id)
        live = endpoint.secrets_at(timezone.now())
        until = endpoint.previous_secret_expires_at if len(live) > 1 else None
        return Response(
            {"secret": live[0], "previous_secret": live[1] if len(live) > 1 else None, "previous_secret_expires_at": Moment().to_representation(until)}
        )
