from tests.test_lanes import *
import sys, traceback, faulthandler
def test_dbg(receiver, hanging):
    slow, quick = endpoint_at(hanging), endpoint_at(receiver)
    owe(slow, 20)
    owed = owe(quick, 200)
    objs=[]
    orig=lanes._Drain.__init__
    def init(self,*a):
        orig(self,*a); objs.append(self)
    lanes._Drain.__init__=init
    draining = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 20)
    receiver.wait_for(lambda got: len(got) == 200)
    eventually(lambda: states(quick) == {"delivered": 200})
    more = patiently(lambda: owe(quick, 5))
    try:
        receiver.wait_for(lambda got: len(got) == 205, 3)
    except TimeoutError: pass
    print("running", draining.running, draining._error)
    d=objs[0]
    for l in d.lines.values(): print(l.endpoint_id==quick.id, l.open, l.exhausted, l.position, len(l.owned), l.gate.open, len(l.gate.waiting), l.gate.limit, getattr(l.gate,'open_until',None)-monotonic())
    print(d.stopped_at, d.lost, d.troubles, d.holding.held, d.config_version, monotonic()-d.config_at, monotonic()-d.claim_at, d.done)
    print(states(quick))
    hanging.closing.set()
    draining.result()
    assert 0
