#include "coordinator/core/placement.h"

#include <algorithm>
#include <limits>

namespace trainyard::coordinator {
namespace {

int Capacity(const PlacementRequest& request, const FreeWorker& worker) {
  const int limit = request.slots_per_worker > 0 ? request.slots_per_worker : std::numeric_limits<int>::max();
  return std::min(static_cast<int>(worker.free_slots.size()), limit);
}

std::optional<std::vector<v1::RankPlace>> PlaceOn(const PlacementRequest& request,
                                                  std::vector<const FreeWorker*> workers) {
  std::vector<const FreeWorker*> chosen;
  const FreeWorker* tightest = nullptr;
  for (const FreeWorker* worker : workers) {
    if (Capacity(request, *worker) < request.ranks) continue;
    const bool better =
        tightest == nullptr || worker->free_slots.size() < tightest->free_slots.size() ||
        (worker->free_slots.size() == tightest->free_slots.size() && worker->worker_id < tightest->worker_id);
    if (better) tightest = worker;
  }
  if (tightest != nullptr) {
    chosen.push_back(tightest);
  } else {
    std::sort(workers.begin(), workers.end(), [&](const FreeWorker* a, const FreeWorker* b) {
      const int a_capacity = Capacity(request, *a), b_capacity = Capacity(request, *b);
      return a_capacity != b_capacity ? a_capacity > b_capacity : a->worker_id < b->worker_id;
    });
    int capacity = 0;
    for (const FreeWorker* worker : workers) {
      if (capacity >= request.ranks) break;
      chosen.push_back(worker);
      capacity += Capacity(request, *worker);
    }
    if (capacity < request.ranks) return std::nullopt;
  }
  std::vector<v1::RankPlace> places;
  for (const FreeWorker* worker : chosen) {
    for (int i = 0; i < Capacity(request, *worker) && static_cast<int>(places.size()) < request.ranks; ++i) {
      v1::RankPlace& place = places.emplace_back();
      place.set_rank(static_cast<int>(places.size()) - 1);
      place.set_worker_id(worker->worker_id);
      place.set_host(worker->host);
      place.set_slot(worker->free_slots[i]);
    }
  }
  return places;
}

}  // namespace

std::optional<std::vector<v1::RankPlace>> Place(const PlacementRequest& request,
                                                const std::vector<FreeWorker>& workers) {
  std::vector<const FreeWorker*> preferred, all;
  for (const FreeWorker& worker : workers) {
    all.push_back(&worker);
    if (!request.avoided_workers.contains(worker.worker_id)) preferred.push_back(&worker);
  }
  auto places = PlaceOn(request, preferred);
  if (!places && preferred.size() < all.size()) places = PlaceOn(request, all);
  return places;
}

}  // namespace trainyard::coordinator
