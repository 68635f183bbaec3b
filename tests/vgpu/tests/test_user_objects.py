"""Objects of the program's that graphs keep alive, for as long as the graph or anything made of it is there."""

import ctypes

from cuda.bindings import driver


def test_an_object_goes_with_the_last_graph():
    def done(result):
        assert result[0] == driver.CUresult.CUDA_SUCCESS, result
        return result[1] if len(result) > 1 else None

    gone = []
    destroy = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(gone.append)
    address = driver.CUhostFn(ctypes.cast(destroy, ctypes.c_void_p).value)
    done(driver.cuInit(0))
    done(driver.cuCtxSetCurrent(done(driver.cuDevicePrimaryCtxRetain(0))))
    flag = driver.CUuserObject_flags.CU_USER_OBJECT_NO_DESTRUCTOR_SYNC
    move = driver.CUuserObjectRetain_flags.CU_GRAPH_USER_OBJECT_MOVE

    graph = done(driver.cuGraphCreate(0))
    moved = done(driver.cuUserObjectCreate(41, address, 1, flag))
    shared = done(driver.cuUserObjectCreate(42, address, 1, flag))
    done(driver.cuGraphRetainUserObject(graph, moved, 1, move))
    done(driver.cuGraphRetainUserObject(graph, shared, 2, 0))
    made = done(driver.cuGraphInstantiate(graph, 0))
    done(driver.cuUserObjectRelease(shared, 1))
    done(driver.cuGraphReleaseUserObject(graph, shared, 1))
    assert driver.cuGraphReleaseUserObject(graph, shared, 2)[0] == driver.CUresult.CUDA_ERROR_INVALID_VALUE
    done(driver.cuGraphDestroy(graph))
    assert not gone
    done(driver.cuGraphExecDestroy(made))
    assert sorted(gone) == [41, 42]
