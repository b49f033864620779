"""Back into the queue: deliveries one by one, or many at once by a filter, paced and resumable.

| action | what it does |
|---|---|
| replay | makes deliveries due now, with a fresh retry schedule; `webhook-id` and attempts stay |
| recover | makes the deliveries that an endpoint would have got, had its present subscriptions been there when the events came |
| dismiss | cancels dead letters; a dismissed one can be replayed as long as it is kept |

    wish = Replay(action="replay", endpoint=endpoint, delivery_state=Delivery.State.DEAD, rate_per_s=50)
    preview(wish)             # how many there are
    start(wish, by="ada")     # the row is the order; workers carry it out
    cancel(wish, by="ada")    # what was done stays done

The row knows its position, and moves on in the transaction that moves the deliveries: see `running.py`.
"""

from delivery.replay.moves import dismiss, replay
from delivery.replay.orders import cancel, preview, start
from delivery.replay.running import run_for_a_while
from delivery.replay.walks import Count

__all__ = ["Count", "cancel", "dismiss", "preview", "replay", "run_for_a_while", "start"]
